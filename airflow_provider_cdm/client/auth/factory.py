"""Chooses the authenticator for the credentials of a connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_cdm.client.auth.base import Authenticator
from airflow_provider_cdm.client.auth.rotation import RotatingAuth, forget_look_ups
from airflow_provider_cdm.client.auth.token import TokenAuth, forget_tokens
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.settings import KeyCredentials, Settings

if TYPE_CHECKING:
    from airflow_provider_cdm.client.auth.token_cache import Cipher


def authenticator_for(
    settings: Settings,
    exchanger: Exchanger,
    on_token: Callable[[str], None] | None = None,
    cipher: Cipher | None = None,
) -> Authenticator:
    """Return the authenticator for the settings: with a token, signatures, or an agency's token.

    :param settings: endpoints, credentials, agency and project.
    :param exchanger: performs the calls to IAM.
    :param on_token: function that is called with every new token, so that logs can mask it.
    :param cipher: encryption for the token cache; without it, the cache is off.
    """
    keys = settings.credentials if isinstance(settings.credentials, KeyCredentials) else None
    if settings.agency is None:
        if keys is not None:
            from airflow_provider_cdm.client.auth.access_key import AccessKeyAuth

            return AccessKeyAuth(settings, keys, exchanger)
        return TokenAuth(settings, exchanger, on_token, cipher)
    # The project belongs to the delegating account, so the user's own settings name none.
    own_settings = replace(settings, agency=None, project_id=None, project_name=None)
    user_auth = authenticator_for(own_settings, exchanger, on_token, cipher)
    return TokenAuth(settings, exchanger, on_token, cipher, user_auth)


def rotating_auth_for(
    settings: Settings,
    exchanger: Exchanger,
    on_token: Callable[[str], None] | None = None,
    cipher: Cipher | None = None,
    look_up: Callable[[], Settings] | None = None,
) -> RotatingAuth:
    """Return the authenticator for a connection whose credentials may change.

    :param look_up: reads the connection again, and may block; ``None`` if that is not possible.

    The other arguments are those of :func:`authenticator_for`.
    """

    def make(settings: Settings) -> Authenticator:
        return authenticator_for(settings, exchanger, on_token, cipher)

    return RotatingAuth(settings, exchanger, make, look_up)


def forget_everything() -> None:
    """Drop all tokens, rejections, clock differences and look-ups of this process; for tests."""
    from airflow_provider_cdm.client.auth.access_key import forget_keys

    forget_look_ups()
    forget_tokens()
    forget_keys()

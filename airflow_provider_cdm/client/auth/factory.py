"""Which access a connection's credentials give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from airflow_provider_cdm.client.auth.access_key import AccessKeyAuth, forget_keys
from airflow_provider_cdm.client.auth.base import Authenticator
from airflow_provider_cdm.client.auth.token import TokenAuth, forget_tokens
from airflow_provider_cdm.client.auth.token_cache import Cipher
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.settings import KeyCredentials, Settings


def authenticator_for(
    settings: Settings,
    exchanger: Exchanger,
    on_token: Callable[[str], None] | None = None,
    cipher: Cipher | None = None,
) -> Authenticator:
    """Choose the access that fits the settings: a token, signatures, or a token for an agency.

    :param on_token: told every new token, so that it can be masked in logs.
    :param cipher: encrypts what goes to the token cache.
    """
    keys = settings.credentials if isinstance(settings.credentials, KeyCredentials) else None
    if settings.agency is None:
        if keys is not None:
            return AccessKeyAuth(settings, keys, exchanger)
        return TokenAuth(settings, exchanger, on_token, cipher)
    # The project is the delegating account's, so the delegated user asks without one.
    own = replace(settings, agency=None, project_id=None, project_name=None)
    return TokenAuth(
        settings, exchanger, on_token, cipher, authenticator_for(own, exchanger, on_token, cipher)
    )


def forget_everything() -> None:
    """Drop all tokens, refusals and clock differences of this process; for tests."""
    forget_tokens()
    forget_keys()

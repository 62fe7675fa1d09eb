"""Who a request is from: what the kinds of credentials have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.sansio import Flow, Request

T = TypeVar("T")


class Authorization(Protocol):
    """What makes requests authorised ones, for a while."""

    @property
    def project_id(self) -> str | None:
        """The project that it is good for, if it says so."""

    def apply(self, request: Request) -> Request:
        """Return the request with the proof of who sends it."""


class Authenticator(Protocol):
    """Provides grants to the user of one connection."""

    def authorize(self) -> Flow[Authorization]:
        """Get a grant.

        :raises CdmAuthError: when the credentials are refused, now or a short while ago.
        """

    def invalidate(self, authorization: Authorization, error: errors.CdmError) -> Flow[bool]:
        """Take note that a call with this grant failed.

        :returns: whether the call had better be repeated with a new grant.
        """


def with_authorization(auth: Authenticator, send: Callable[[Authorization], Flow[T]]) -> Flow[T]:
    """Make a call with a grant, and once more where a new grant may cure its refusal.

    :raises CdmError: what the last call came to.
    """
    authorization = yield from auth.authorize()
    try:
        return (yield from send(authorization))
    except errors.CdmError as error:
        if not (yield from auth.invalidate(authorization, error)):
            raise
    return (yield from send((yield from auth.authorize())))


def rejects_credentials(error: errors.CdmError) -> bool:
    """Whether a call failed because of who sent it, and not because of what they may do."""
    return error.http_status == 401 or error.code in ("APIGW.0301", "APIGW.0307")

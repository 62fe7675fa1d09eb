"""Who a request is from: what the kinds of credentials have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.sansio import Flow, Request

T = TypeVar("T")


class Grant(Protocol):
    """What makes requests authorised ones, for a while."""

    @property
    def project_id(self) -> str | None:
        """The project that it is good for, if it says so."""

    def authorise(self, request: Request) -> Request:
        """Return the request with the proof of who sends it."""


class Access(Protocol):
    """Provides grants to the user of one connection."""

    def grant(self) -> Flow[Grant]:
        """Get a grant.

        :raises CdmAuthError: when the credentials are refused, now or a short while ago.
        """

    def reject(self, grant: Grant, error: errors.CdmError) -> Flow[bool]:
        """Take note that a call with this grant failed.

        :returns: whether the call had better be repeated with a new grant.
        """


def authorised(access: Access, send: Callable[[Grant], Flow[T]]) -> Flow[T]:
    """Make a call with a grant, and once more where a new grant may cure its refusal.

    :raises CdmError: what the last call came to.
    """
    grant = yield from access.grant()
    try:
        return (yield from send(grant))
    except errors.CdmError as error:
        if not (yield from access.reject(grant, error)):
            raise
    return (yield from send((yield from access.grant())))


def is_refusal(error: errors.CdmError) -> bool:
    """Whether a call failed because of who sent it, and not because of what they may do."""
    return error.http_status == 401 or error.code in ("APIGW.0301", "APIGW.0307")

"""The interface of authentication, which tokens and access keys implement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.sansio import Flow, Request

T = TypeVar("T")


class Authorization(Protocol):
    """Authorizes requests for a limited time: a token, or a signature with an access key."""

    @property
    def project_id(self) -> str | None:
        """Id of the project that it is valid for, if it is known."""

    def apply(self, request: Request) -> Request:
        """Return the request with credentials."""


class Authenticator(Protocol):
    """Obtains authorizations for the user of one connection."""

    def is_ready(self) -> bool:
        """Return whether :meth:`authorize` answers at once, so that nobody has to wait for it."""

    def is_refused(self) -> bool:
        """Return whether the credentials were rejected recently."""

    def is_current(self, authorization: Authorization) -> bool:
        """Return whether an authorization has not been replaced yet."""

    def authorize(self) -> Flow[Authorization]:
        """Return a valid authorization, a cached one if possible.

        :raises CdmAuthError: when the credentials are rejected, or were rejected recently.
        """

    def invalidate(
        self, authorization: Authorization, error: errors.CdmError, *, last: bool = False
    ) -> Flow[bool]:
        """Process the failure of a call: drop the authorization if the failure is about it.

        :param authorization: authorization of the failed call.
        :param error: failure of the call.
        :param last: whether the call was repeated already, and is not repeated any more.
        :returns: whether the call should be repeated with a new authorization.
        """

    def accept(self, authorization: Authorization) -> None:
        """Note that a call with the authorization succeeded."""

    def forget(self) -> None:
        """Drop what is remembered of the credentials, as the connection has other ones now."""


def with_authorization(
    auth: Authenticator,
    send: Callable[[Authorization], Flow[T]],
    authorize: Callable[[], Flow[Authorization]] | None = None,
) -> Flow[T]:
    """Make a call with an authorization; repeat it once with a new one if the first was rejected.

    :param auth: authenticator of the connection.
    :param send: function that makes the call with a given authorization.
    :param authorize: what to call in place of the authenticator's method.
    :raises CdmError: the failure of the last call.
    """
    last = False
    while True:
        authorization = yield from (authorize or auth.authorize)()
        try:
            result = yield from send(authorization)
        except errors.CdmError as error:
            repeat = yield from auth.invalidate(authorization, error, last=last)
            if last or not repeat:
                raise
            last = True
        else:
            auth.accept(authorization)
            return result

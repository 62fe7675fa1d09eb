"""Credentials that change while a session lasts: its connection is looked up again.

What is refused may be correct by now in the connection. A look-up may be slow and costs Airflow
something, so all sessions of a connection in this process share it, and there is one every half
minute at most.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth.base import Authenticator, Authorization
from airflow_provider_cdm.client.bounded import NotFinishedError, run_bounded
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.locks import ProcessLock
from airflow_provider_cdm.client.sansio import Flow, offload
from airflow_provider_cdm.client.settings import Settings

log = logging.getLogger(__name__)

#: Seconds between two look-ups of a connection whose credentials are refused.
LOOK_UP_PAUSE = 30.0
#: Seconds for which a call waits for its look-up, and for that of another one.
_PATIENCE, _QUEUE_SECONDS = 10.0, 1.0


@dataclass(slots=True, weakref_slot=True)
class _LookUps:
    """What the sessions of one connection share; it goes with the last of them.

    :param lock: held during a look-up.
    :param number: how many look-ups succeeded.
    :param settings: what the last of them found.
    :param again_at: when to look up again, by the monotonic clock.
    :param problem: why the last look-up failed; ``None`` if it succeeded.
    """

    lock: ProcessLock = field(default_factory=ProcessLock)
    number: int = 0
    settings: Settings | None = field(default=None, repr=False)
    again_at: float = -math.inf
    problem: str | None = None


_look_ups: WeakValueDictionary[str, _LookUps] = WeakValueDictionary()
_look_ups_lock = ProcessLock()


def _shared_look_ups(conn_id: str | None) -> _LookUps:
    if conn_id is None:
        return _LookUps()
    with _look_ups_lock:
        return _look_ups.setdefault(conn_id, _LookUps())


def forget_look_ups() -> None:
    """Drop what was found in connections; for tests."""
    with _look_ups_lock:
        _look_ups.clear()


class RotatingAuth:
    """Authorizes requests with the credentials that the connection holds at the time.

    When they are refused, the connection is looked up again before they are sent once more. If it
    holds others, the call is repeated with those at once.

    :param settings: what the connection held when the session began.
    :param exchanger: provides the clock.
    :param make: returns the authenticator for settings.
    :param look_up: reads the connection again, and may block; ``None`` if that is not possible.
    """

    def __init__(
        self,
        settings: Settings,
        exchanger: Exchanger,
        make: Callable[[Settings], Authenticator],
        look_up: Callable[[], Settings] | None = None,
    ) -> None:
        self.settings = settings
        self._exchanger = exchanger
        self._make = make
        self._current = make(settings)
        self._look_up = look_up
        self._shared = _shared_look_ups(settings.conn_id)
        self._seen = self._shared.number

    def is_ready(self) -> bool:
        """Return whether :meth:`authorize` answers at once."""
        return self._current.is_ready()

    def is_refused(self) -> bool:
        """Return whether the present credentials were rejected recently."""
        return self._current.is_refused()

    def is_current(self, authorization: Authorization) -> bool:
        """Return whether an authorization has not been replaced yet."""
        return self._current.is_current(authorization)

    def authorize(self) -> Flow[Authorization]:
        """Return a valid authorization, a cached one if possible.

        :raises CdmAuthError: when the credentials are rejected, or were rejected recently, and the
            connection holds no others.
        """
        used = self._current
        try:
            authorization = yield from used.authorize()
        except errors.CdmError as error:
            if not error.refuses_credentials:
                raise
            if not (yield from self._look_up_again(used)):
                self._explain(error)
                raise
        else:
            # An old token serves on after its renewal was refused.
            if not used.is_refused() or not (yield from self._look_up_again(used)):
                return authorization
        return (yield from self._current.authorize())

    def invalidate(
        self, authorization: Authorization, error: errors.CdmError, *, last: bool = False
    ) -> Flow[bool]:
        """Look the connection up if credentials were refused; then see the authenticator for them.

        The look-up comes first, so that an old password is not sent where a token was revoked
        because of a new one.
        """
        used = self._current
        refused = error.refuses_credentials
        # A late refusal of what has been replaced since says nothing about the present.
        present = refused and not last and used.is_current(authorization)
        if present and (yield from self._look_up_again(used)):
            return True
        repeat = yield from used.invalidate(authorization, error, last=last)
        if refused and not repeat:
            self._explain(error)
        return repeat

    def accept(self, authorization: Authorization) -> None:
        """Note that a call with the authorization succeeded."""
        self._current.accept(authorization)

    def forget(self) -> None:
        """Drop what is remembered of the credentials."""
        self._current.forget()

    def adopt(self, settings: Settings) -> None:
        """Go on with what somebody else has found in the connection, and tell its other sessions.

        :param settings: what the connection holds now.
        """
        if self._change_to(settings):
            with self._shared.lock:
                self._shared.settings = settings
                self._shared.number += 1
                self._seen = self._shared.number

    def _change_to(self, settings: Settings) -> bool:
        """Go on with other settings for the same project; return whether they are others.

        Credentials for other endpoints or another agency are not sent to these.
        """
        settings = settings.moved_to(self.settings)
        if settings == self.settings or settings.place != self.settings.place:
            return False
        old, self._current = self._current, self._make(settings)
        self.settings = settings
        old.forget()
        return True

    def _look_up_again(self, used: Authenticator) -> Flow[bool]:
        """Look the connection up, unless that was done just now.

        :param used: authenticator whose credentials were refused.
        :returns: whether there is another one by now.
        """
        shared = self._shared
        if self._current is used and self._look_up is not None:
            number = shared.number
            if self._seen == number and self._exchanger.uptime() >= shared.again_at:
                yield from offload(lambda: self._read(number))
            self._take_over()
        return self._current is not used

    def _read(self, number: int) -> None:
        """Look the connection up; what prevents that is remembered, and fails no call.

        :param number: number of look-ups before; if there are more by now, there is no need.
        """
        shared = self._shared
        try:
            looked_up = run_bounded(lambda: self._look_up_now(number), _PATIENCE)
        except NotFinishedError:
            # It goes on, and a later call takes over what it finds.
            shared.problem, looked_up = f"no answer within {_PATIENCE:.0f} s", True
        if looked_up and shared.problem is not None:
            log.warning("%s cannot be looked up again: %s", self._name, shared.problem)

    def _look_up_now(self, number: int) -> bool:
        """Look the connection up, and return whether there was a need to."""
        shared, look_up = self._shared, self._look_up
        if look_up is None or not shared.lock.acquire(timeout=_QUEUE_SECONDS):
            return False
        try:
            if shared.number != number or self._exchanger.uptime() < shared.again_at:
                return False  # another caller has just done it
            try:
                shared.settings = look_up()
            except Exception as error:
                # The text of an error of a secrets backend may hold a secret.
                ours = isinstance(error, errors.CdmConfigError)
                shared.problem = str(error) if ours else type(error).__name__
            else:
                shared.number, shared.problem = shared.number + 1, None
            shared.again_at = self._exchanger.uptime() + LOOK_UP_PAUSE
            return True
        finally:
            shared.lock.release()

    def _take_over(self) -> None:
        """Adopt what this session, or another one of the connection, has looked up."""
        number, found = self._shared.number, self._shared.settings
        if number == self._seen or found is None:
            return
        self._seen = number
        if self._change_to(found):
            log.info("%s has changed; its new content is used from now on", self._name)

    def _explain(self, error: errors.CdmError) -> None:
        """Add to a refusal what the connection holds now."""
        if self._look_up is None:
            return
        shared = self._shared
        if shared.problem is not None or shared.settings is None:
            reason = f" ({shared.problem})" if shared.problem else ""
            error.connection_unread = True
            error.add_detail(f" {self._name} could not be looked up again{reason}.")
        elif shared.settings.moved_to(self.settings).place != self.settings.place:
            error.add_detail(
                f" {self._name} was looked up again and now names other endpoints or another"
                " agency, for which its credentials are."
            )
        else:
            error.add_detail(f" {self._name} was looked up again and holds the same credentials.")

    @property
    def _name(self) -> str:
        conn_id = self.settings.conn_id
        return "The connection" if conn_id is None else f"Connection {conn_id!r}"

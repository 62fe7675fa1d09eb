"""Keeping a token of IAM alive: when one is requested, by whom, and what the others do meanwhile.

Each process keeps one token for the same credentials and project, renews it before it expires, and
requests it in one caller at a time: two hundred threads that need a token make one call. The
lock-out guard remembers a rejected password.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakSet

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth.base import (
    Authenticator,
    Authorization,
    with_authorization,
)
from airflow_provider_cdm.client.auth.iam import (
    Token,
    from_cached,
    read_token,
    request_body,
    scope_of,
    with_advice,
)
from airflow_provider_cdm.client.auth.lockout import LockoutGuard
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.locks import ProcessLock
from airflow_provider_cdm.client.sansio import Flow, Request, offload, pause
from airflow_provider_cdm.client.settings import Settings

if TYPE_CHECKING:
    from airflow_provider_cdm.client.auth.token_cache import Cipher, Lock, TokenFile

#: Seconds for which a rejected password is not sent again (IAM's shortest lock-out period).
LOCKOUT_SECONDS = 900.0
#: How often the same password may be rejected within that time, for all projects together, and how
#: often all passwords of a user together. By default the fifth rejection locks the account.
MAX_REJECTIONS, MAX_REJECTIONS_OF_USER = 2, 3
#: Seconds to wait for a token that another process is requesting.
_CACHE_TIMEOUT = 60.0
#: Seconds between two checks whether another caller has obtained the token; doubles up to the
#: second number.
_QUEUE_PAUSE, _MAX_QUEUE_PAUSE = 0.05, 1.0
#: Seconds after a failed renewal for which the old token is used without another one.
_RENEW_PAUSE = 30.0


@dataclass(slots=True)
class _TokenState:
    """The current token of this process for one scope.

    :param lock: held while a token is requested.
    :param renew_again_at: when to try again after a renewal that failed, by the monotonic clock.
    :param users: authenticators that share it.
    """

    lock: ProcessLock = field(default_factory=ProcessLock)
    token: Token | None = None
    renew_again_at: float = -math.inf
    users: WeakSet[TokenAuth] = field(default_factory=WeakSet)


_states: dict[tuple[object, ...], _TokenState] = {}
_guard = LockoutGuard(
    (LOCKOUT_SECONDS,), MAX_REJECTIONS, MAX_REJECTIONS_OF_USER, "IAM does not lock the account"
)


def forget_tokens() -> None:
    """Drop all tokens and rejections of this process; for tests."""
    _states.clear()
    _guard.rejections.clear()


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TokenAuth:
    """Authorizes requests with a token for the settings' project, or for the account without one.

    :param settings: endpoint of IAM, credentials, agency and project.
    :param exchanger: performs the calls to IAM.
    :param on_token: function that is called with every new token, so that logs can mask it.
    :param cipher: encryption for the token cache; without it, the cache is off.
    :param user_auth: authenticator of the user who requests the agency's token; ``None`` to request
        the user's own token with the password of the settings.
    """

    settings: Settings
    exchanger: Exchanger
    on_token: Callable[[str], None] | None = None
    cipher: Cipher | None = None
    user_auth: Authenticator | None = None
    #: Whom IAM counts rejections for, and what distinguishes the credentials; and the key of the
    #: token's state. Several are needed for each call, and the settings never change.
    _credentials: tuple[object, str] = field(init=False, repr=False)
    _key: tuple[object, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        settings = self.settings
        owner = settings.iam_endpoint, settings.credentials.owner
        credentials = owner, settings.credentials_key
        agency = settings.agency if self.user_auth else None
        # A proxy that does not answer must not delay connections that use another one.
        key = (*credentials, agency, self._scope(), settings.route_key)
        object.__setattr__(self, "_credentials", credentials)
        object.__setattr__(self, "_key", key)

    def is_ready(self) -> bool:
        """Return whether there is a valid token, even if it is to be renewed, or none to be had."""
        return self._valid(self._state().token) is not None or self.is_refused()

    def is_refused(self) -> bool:
        """Return whether IAM rejected the user's credentials recently."""
        if self.user_auth is not None:
            return self.user_auth.is_refused()
        return _guard.is_refused(*self._credentials, self.exchanger.uptime())

    def is_current(self, authorization: Authorization) -> bool:
        """Return whether a token has not been replaced yet."""
        return self._state().token is authorization

    def authorize(self) -> Flow[Authorization]:
        """Return a valid token; see :meth:`token`."""
        return (yield from self.token())

    def token(self) -> Flow[Token]:
        """Return a valid token, the current one if possible.

        Near its end it is renewed, by one caller at a time; while that lasts, and for some time
        after it has failed, the others go on with the old one.

        :raises CdmAuthError: when IAM rejects the credentials, or rejected them recently, and there
            is no old token.
        """
        state, seconds = self._state(), _QUEUE_PAUSE
        while True:
            old = self._valid(state.token)
            if old is not None and not self._is_due(old, state):
                return old
            if (blocked := self._blocked()) is not None:
                if old is not None:
                    return old
                raise blocked
            # Must not block: on an event loop, it would also stop the flow that holds the lock.
            if state.lock.acquire(blocking=False):
                # While the old token is valid, repeated calls to IAM would only delay its use.
                renewer = self if old is None else replace(self, exchanger=self.exchanger.once())
                try:
                    token = self._usable(state.token)
                    return token or (yield from renewer._renew(state))  # noqa: SLF001 - same class
                finally:
                    state.lock.release()
            if old is not None:
                return old
            yield from pause(seconds)
            seconds = min(2 * seconds, _MAX_QUEUE_PAUSE)

    def invalidate(
        self, authorization: Authorization, error: errors.CdmError, *, last: bool = False
    ) -> Flow[bool]:
        """Drop a token that was rejected, unless it has been replaced in the meantime.

        Changes of permissions and passwords invalidate tokens early; a new one may be accepted. If
        that is rejected as well, it is kept: IAM has just issued it, so the fault is elsewhere.
        """
        if last or not error.refuses_credentials or error.http_status == 407:
            return False
        state = self._state()
        if state.token is authorization:
            state.token = None
        if isinstance(authorization, Token) and (file := self._token_file()):
            yield from offload(lambda: file.delete(authorization.value))
        return True

    def accept(self, authorization: Authorization) -> None:
        """Do nothing: IAM has accepted the credentials when it issued the token."""

    def forget(self) -> None:
        """Drop the token, unless other sessions use it."""
        key = self._key
        if (state := _states.get(key)) is not None:
            state.users.discard(self)
            if not state.users:
                _states.pop(key, None)
        if self.user_auth is not None:
            self.user_auth.forget()

    def _state(self) -> _TokenState:
        state = _states.get(self._key)
        if state is None:
            self._forget_expired()
            # setdefault is atomic, so two threads always get the same state.
            state = _states.setdefault(self._key, _TokenState())
        state.users.add(self)
        return state

    def _forget_expired(self) -> None:
        """Drop the tokens of connections that are no longer used, such as an earlier password's."""
        for key, state in list(_states.items()):
            if self._valid(state.token) is None and (state.token or not state.users):
                _states.pop(key, None)

    def _blocked(self) -> errors.CdmAuthError | None:
        if self.user_auth is not None:
            return None
        return _guard.check(*self._credentials, self._scope(), self.exchanger.uptime())

    def _scope(self) -> tuple[str, str]:
        return scope_of(self.settings)

    def _valid(self, token: Token | None) -> Token | None:
        return token if token is not None and self.exchanger.uptime() < token.expires_at else None

    def _is_due(self, token: Token, state: _TokenState) -> bool:
        """Return whether to renew a valid token now."""
        return self._usable(token) is None and self.exchanger.uptime() >= state.renew_again_at

    def _usable(self, token: Token | None) -> Token | None:
        return token if token is not None and self.exchanger.uptime() < token.renew_at else None

    def _renew(self, state: _TokenState) -> Flow[Token]:
        file = self._token_file()
        try:
            token = yield from (self._from_cache(file) if file else self._request_token())
        except errors.CdmError as failure:
            # The call that needs the token has not been sent, so it certainly had no effect.
            failure.effect_unknown = False
            passes = failure.retryable or failure.refuses_credentials
            if passes and (old := self._valid(state.token)) is not None:
                # Tokens are renewed early, so the old one can be used while IAM is unavailable, and
                # while a password that has changed is looked up.
                state.renew_again_at = self.exchanger.uptime() + _RENEW_PAUSE
                return old
            raise
        state.token = token
        if self.on_token is not None:
            self.on_token(token.value)
        return token

    def _from_cache(self, file: TokenFile) -> Flow[Token]:
        """Return the token of another process, or request one and save it for other processes."""
        give_up_at = self.exchanger.uptime() + _CACHE_TIMEOUT
        lock: Lock | None = None
        try:
            while lock is None and self.exchanger.uptime() < give_up_at:
                lock = yield from offload(file.try_lock)
                if lock is not None and not lock.held:
                    return (yield from self._request_token())
                fields = yield from offload(file.load)
                cached = from_cached(fields)
                if token := self._usable(cached and cached.moved(-self._wall_offset())):
                    return token
                if lock is None:
                    yield from pause(_QUEUE_PAUSE)
            token = yield from self._request_token()
            fields = asdict(token.moved(self._wall_offset()))
            yield from offload(lambda: file.save(fields))
            return token
        finally:
            if lock is not None:
                lock.release()

    def _wall_offset(self) -> float:
        """Return by how much the wall clock, which processes share, is ahead of the monotonic."""
        return self.exchanger.clock() - self.exchanger.uptime()

    def _token_file(self) -> TokenFile | None:
        settings = self.settings
        if settings.token_cache is None or self.cipher is None:
            return None
        from airflow_provider_cdm.client.auth.token_cache import token_file

        identity = (settings.iam_endpoint, repr(settings.credentials), repr(settings.agency))
        secret = json.dumps(asdict(settings.credentials))
        return token_file(
            settings.token_cache, self.cipher, json.dumps([*identity, *self._scope()]), secret
        )

    def _request_token(self) -> Flow[Token]:
        if self.user_auth is not None:
            return (
                yield from with_authorization(
                    self.user_auth, lambda authorization: self._send(authorization.apply)
                )
            )
        try:
            token = yield from self._send(lambda request: request)
        except errors.CdmAuthError as failure:
            if failure.refuses_credentials and failure.http_status != 407:
                now = self.exchanger.uptime()
                _guard.record(*self._credentials, self._scope(), failure, now)
            raise
        _guard.clear(*self._credentials, self._scope())
        return token

    def _send(self, authorize: Callable[[Request], Request]) -> Flow[Token]:
        settings = self.settings
        agency = (
            f" for agency {settings.agency.name!r}" if settings.agency and self.user_auth else ""
        )
        operation = f"get a token{agency} from {settings.iam_endpoint}"
        password = getattr(settings.credentials, "password", None)
        auth = request_body(settings, for_agency=self.user_auth is not None)
        request = Request(
            method="POST",
            # With any value of nocatalog, the response omits the service catalog of some 10 KB.
            url=f"{settings.iam_endpoint}/v3/auth/tokens?nocatalog=true",
            headers={"Content-Type": "application/json;charset=utf8"},
            body=json.dumps({"auth": auth}).encode(),
            secrets=() if self.user_auth or not password else (password,),
        )
        try:
            response = yield from self.exchanger.exchange(
                request, operation, idempotent=True, authorize=authorize
            )
        except errors.CdmError as failure:
            raise with_advice(failure, settings) from None
        return read_token(response, operation, self.exchanger)

"""IAM tokens: asked for with a password, or for an agency, and kept as long as they are good.

A token is kept per process and credentials, renewed before it expires, and asked for by one caller
at a time: two hundred threads that need it make one call. A refused password is remembered.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth.base import (
    Authenticator,
    Authorization,
    rejects_credentials,
    with_authorization,
)
from airflow_provider_cdm.client.auth.lockout import LockoutGuard
from airflow_provider_cdm.client.auth.token_cache import Cipher, Lock, TokenFile, token_file
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.sansio import Flow, Request, Response, offload, pause
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from airflow_provider_cdm.client.text import read_json

#: Seconds before its end at which a token is renewed, so that no call carries a dying one.
RENEW_AHEAD = 300.0
#: Seconds for which a refused password is not sent again (IAM's shortest lock-out period).
LOCKOUT_SECONDS = 900.0
#: How many refusals of the same password are borne within that time, whatever the project.
MAX_REFUSALS = 2
#: Seconds to queue for the token that another process is asking for.
_CACHE_TIMEOUT = 60.0
_QUEUE_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Token:
    """An IAM token and what it is good for.

    :param value: what goes into ``X-Auth-Token``.
    :param expires_at: when it ends, epoch seconds.
    :param renew_at: when to ask for the next one, epoch seconds.
    :param project_id: project of its scope.
    """

    value: str = field(repr=False)
    expires_at: float
    renew_at: float
    project_id: str | None = None
    project_name: str | None = None
    user_name: str | None = None

    def apply(self, request: Request) -> Request:
        """Return the request with this token."""
        return replace(
            request,
            headers={**request.headers, "X-Auth-Token": self.value},
            secrets=(*request.secrets, self.value),
        )


@dataclass(slots=True)
class _TokenState:
    """The place of one token in this process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    token: Token | None = None


_states: dict[tuple[object, ...], _TokenState] = {}
_refusals = LockoutGuard(LOCKOUT_SECONDS, MAX_REFUSALS, "IAM does not lock the account")


def forget_tokens() -> None:
    """Drop all tokens and refusals of this process; for tests."""
    _states.clear()
    _refusals.refusals.clear()


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """Authorises requests with a token: for the settings' project or, where there is none, for the
    user's account.

    :param settings: where and as whom to ask.
    :param exchanger: performs the call to IAM.
    :param on_token: told every new token, so that it can be masked in logs.
    :param cipher: encrypts what goes to the token cache.
    :param base: access of the delegated user, who asks for the token of the settings' agency;
        ``None`` to ask with the settings' password.
    """

    settings: Settings
    exchanger: Exchanger
    on_token: Callable[[str], None] | None = None
    cipher: Cipher | None = None
    base: Authenticator | None = None

    def authorize(self) -> Flow[Authorization]:
        """The same as :meth:`token`."""
        return (yield from self.token())

    def token(self) -> Flow[Token]:
        """Get a token that is good for some minutes at least.

        :raises CdmAuthError: when IAM refuses the credentials, now or a short while ago.
        """
        state = self._state()
        while True:
            if token := self._usable(state.token):
                return token
            if self.base is None:
                now = self.exchanger.clock()
                _refusals.check(self._credentials(), self._scope(), now)
            # Never blocks: a flow may run on an event loop, and the holder may need its turn there.
            if state.lock.acquire(blocking=False):
                try:
                    return self._usable(state.token) or (yield from self._renew(state))
                finally:
                    state.lock.release()
            yield from pause(_QUEUE_PAUSE)

    def invalidate(self, authorization: Authorization, error: errors.CdmError) -> Flow[bool]:
        """Drop a token that a service did not accept, unless it was replaced meanwhile.

        Tokens die early when permissions or passwords change; a new one may do.
        """
        if not rejects_credentials(error) or not isinstance(authorization, Token):
            return False
        state = self._state()
        if state.token is authorization:
            state.token = None
        if cached := self._cached():
            yield from offload(lambda: cached.drop(authorization.value))
        return True

    def _state(self) -> _TokenState:
        key = (*self._credentials(), self.settings.agency if self.base else None, self._scope())
        # setdefault is one atomic step, so two threads cannot end up with two slots.
        return _states.setdefault(key, _TokenState())

    def _credentials(self) -> tuple[object, ...]:
        return self.settings.iam_endpoint, self.settings.credentials

    def _scope(self) -> tuple[str, str]:
        settings = self.settings
        if settings.project_id:
            return "project", settings.project_id
        return (
            ("named project", settings.project_name) if settings.project_name else ("account", "")
        )

    def _usable(self, token: Token | None) -> Token | None:
        return token if token is not None and self.exchanger.clock() < token.renew_at else None

    def _renew(self, state: _TokenState) -> Flow[Token]:
        cached = self._cached()
        try:
            token = yield from (self._from_cache(cached) if cached else self._request_token())
        except errors.CdmError as failure:
            # The call that the token was for was not sent, so it surely had no effect.
            failure.effect_unknown = False
            old = state.token
            if failure.retryable and old is not None and self.exchanger.clock() < old.expires_at:
                # Tokens are renewed early; while IAM is away the old one serves on.
                return old
            raise
        state.token = token
        if self.on_token is not None:
            self.on_token(token.value)
        return token

    def _from_cache(self, cached: TokenFile) -> Flow[Token]:
        """Take the token that another process has left, or ask IAM and leave it for the others."""
        give_up_at = self.exchanger.clock() + _CACHE_TIMEOUT
        lock: Lock | None = None
        try:
            while lock is None and self.exchanger.clock() < give_up_at:
                lock = yield from offload(cached.lock)
                if lock is not None and not lock.held:
                    return (yield from self._request_token())
                left = yield from offload(cached.load)
                if token := self._usable(_from_cached(left)):
                    return token
                if lock is None:
                    yield from pause(_QUEUE_PAUSE)
            token = yield from self._request_token()
            yield from offload(lambda: cached.save(asdict(token)))
            return token
        finally:
            if lock is not None:
                lock.release()

    def _cached(self) -> TokenFile | None:
        settings = self.settings
        if settings.token_cache is None or self.cipher is None:
            return None
        identity = (settings.iam_endpoint, repr(settings.credentials), repr(settings.agency))
        secret = json.dumps(asdict(settings.credentials))
        return token_file(
            settings.token_cache, self.cipher, json.dumps([*identity, *self._scope()]), secret
        )

    def _request_token(self) -> Flow[Token]:
        if self.base is not None:
            return (
                yield from with_authorization(
                    self.base, lambda authorization: self._send(authorization.apply)
                )
            )
        try:
            token = yield from self._send(lambda request: request)
        except errors.CdmAuthError as failure:
            if failure.http_status == 401:
                now = self.exchanger.clock()
                _refusals.note(self._credentials(), self._scope(), failure, now)
            raise
        _refusals.forget(self._credentials(), self._scope())
        return token

    def _send(self, authorize: Callable[[Request], Request]) -> Flow[Token]:
        settings = self.settings
        agency = f" for agency {settings.agency.name!r}" if settings.agency and self.base else ""
        operation = f"get a token{agency} from {settings.iam_endpoint}"
        password = getattr(settings.credentials, "password", None)
        request = Request(
            method="POST",
            # Any value of nocatalog keeps the service catalogue, some 10 KB, out of the answer.
            url=f"{settings.iam_endpoint}/v3/auth/tokens?nocatalog=true",
            headers={"Content-Type": "application/json;charset=utf8"},
            body=json.dumps({"auth": self._request_body()}).encode(),
            secrets=() if self.base or not password else (password,),
        )
        response = yield from self.exchanger.exchange(
            request, operation, idempotent=True, authorize=authorize
        )
        return _read_token(response, operation, self.exchanger.clock())

    def _request_body(self) -> dict[str, Any]:
        """What to ask IAM for: "Obtaining a User Token Through Password", "... an Agency Token"."""
        settings, credentials, agency = (
            self.settings,
            self.settings.credentials,
            self.settings.agency,
        )
        kind, value = self._scope()
        scope: dict[str, Any] = {"project": {"id" if kind == "project" else "name": value}}
        if self.base is not None and agency is not None:
            assume = {"domain_name": agency.domain, "agency_name": agency.name}
            return {
                "identity": {"methods": ["assume_role"], "assume_role": assume},
                "scope": scope,
            }
        if not isinstance(credentials, PasswordCredentials):
            raise RuntimeError("A token needs a password or somebody who asks for it")
        if not (settings.project_id or settings.project_name):
            scope = {"domain": {"name": credentials.domain}}
        user = {
            "name": credentials.user,
            "password": credentials.password,
            "domain": {"name": credentials.domain},
        }
        return {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": scope,
        }


def _read_token(response: Response, operation: str, now: float) -> Token:
    value = response.headers.get("x-subject-token", "")
    try:
        body: Any = read_json(response.body)["token"]
        expires = datetime.fromisoformat(body["expires_at"])
        expires_at = (expires if expires.tzinfo else expires.replace(tzinfo=UTC)).timestamp()
    except (ValueError, KeyError, TypeError, OverflowError):
        raise error_mapping.bad_response(response, operation, "the answer is not a token") from None
    # A header may be folded over lines, and then it cannot be sent back.
    if not value or not value.isascii() or not value.isprintable():
        raise error_mapping.bad_response(response, operation, "the answer has no X-Subject-Token")
    project = _mapping(body.get("project"))
    return Token(
        value=value,
        expires_at=expires_at,
        renew_at=expires_at - min(RENEW_AHEAD, 0.1 * max(0.0, expires_at - now)),
        project_id=_text(project.get("id")),
        project_name=_text(project.get("name")),
        user_name=_text(_mapping(body.get("user")).get("name")),
    )


def _from_cached(kept: Mapping[str, Any] | None) -> Token | None:
    try:
        return Token(**kept) if kept else None
    except TypeError:  # left by another version of this package
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

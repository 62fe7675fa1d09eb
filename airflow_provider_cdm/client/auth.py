"""Credentials made into authorised requests.

An IAM token is kept per process and credentials, renewed before it expires, and asked for by one
caller at a time: two hundred threads that need it make one call. A refused password is remembered,
because IAM locks an account after a few wrong ones.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_provider_cdm.client import errors, failures
from airflow_provider_cdm.client.messages import Flow, Request, Response, pause
from airflow_provider_cdm.client.retry import Exchanger
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings

#: Seconds before its end at which a token is renewed, so that no call carries a dying one.
RENEW_AHEAD = 300.0
#: Seconds for which a refused password is not sent again (IAM's shortest lock-out period).
REFUSAL_MEMORY = 900.0
#: How many refusals of the same credentials are borne within that time, whatever the project.
REFUSALS_BORNE = 2
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


@dataclass(slots=True)
class _Slot:
    """The place of one token in this process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    token: Token | None = None
    refusal: _Refusal | None = None


@dataclass(frozen=True, slots=True)
class _Refusal:
    error: errors.CdmAuthError
    until: float


_Identity = tuple[str, PasswordCredentials]
_slots: dict[tuple[_Identity, str | None, str | None], _Slot] = {}
_refusals: dict[_Identity, tuple[_Refusal, ...]] = {}


def forget_everything() -> None:
    """Drop all tokens and refusals of this process; for tests."""
    _slots.clear()
    _refusals.clear()


@dataclass(frozen=True, slots=True)
class TokenAccess:
    """Authorises requests with a token for the settings' project.

    :param settings: where and as whom to ask.
    :param exchanger: performs the call to IAM.
    :param on_token: told every new token, so that it can be masked in logs.
    """

    settings: Settings
    exchanger: Exchanger
    on_token: Callable[[str], None] | None = None

    def token(self) -> Flow[Token]:
        """Get a token that is good for some minutes at least.

        :raises CdmAuthError: when IAM refuses the credentials, now or a short while ago.
        """
        slot = self._slot()
        while True:
            if token := self._usable(slot):
                return token
            # Never blocks: a flow may run on an event loop, and the holder may need its turn there.
            if slot.lock.acquire(blocking=False):
                try:
                    return self._usable(slot) or (yield from self._renew(slot))
                finally:
                    slot.lock.release()
            yield from pause(_QUEUE_PAUSE)

    def reject(self, token: Token) -> None:
        """Drop a token that a service did not accept, unless it was replaced meanwhile."""
        slot = self._slot()
        if slot.token is token:
            slot.token = None

    def _slot(self) -> _Slot:
        settings = self.settings
        project_name = None if settings.project_id else settings.project_name
        # setdefault is one atomic step, so two threads cannot end up with two slots.
        return _slots.setdefault((self._identity(), settings.project_id, project_name), _Slot())

    def _identity(self) -> _Identity:
        return self.settings.iam_endpoint, self.settings.credentials

    def _refusal(self, slot: _Slot, now: float) -> _Refusal | None:
        """What forbids to send these credentials now.

        A refusal may be about the project alone, so it counts for its own; but a second one counts
        for all projects, because IAM may lock the account at the third.
        """
        recent = tuple(one for one in _refusals.get(self._identity(), ()) if now < one.until)
        if len(recent) >= REFUSALS_BORNE:
            return recent[-1]
        return slot.refusal if slot.refusal is not None and now < slot.refusal.until else None

    def _usable(self, slot: _Slot) -> Token | None:
        now = self.exchanger.clock()
        token = slot.token
        if token is not None and now < token.renew_at:
            return token
        if refusal := self._refusal(slot, now):
            minutes = math.ceil((refusal.until - now) / 60)
            raise errors.CdmAuthError(
                f"{refusal.error.message} These credentials were refused a short while ago and are"
                f" not sent again for {minutes} min in this process, so that IAM does not lock the"
                " account.",
                http_status=refusal.error.http_status,
                code=refusal.error.code,
                request_id=refusal.error.request_id,
            )
        return None

    def _renew(self, slot: _Slot) -> Flow[Token]:
        try:
            token = yield from self._ask_for_token()
        except errors.CdmError as failure:
            # The call that the token was for was not sent, so it surely had no effect.
            failure.effect_unknown = False
            old = slot.token
            if failure.retryable and old is not None and self.exchanger.clock() < old.expires_at:
                # Tokens are renewed early; while IAM is away the old one serves on.
                return old
            if isinstance(failure, errors.CdmAuthError) and failure.http_status == 401:
                slot.refusal = _Refusal(failure, self.exchanger.clock() + REFUSAL_MEMORY)
                earlier = _refusals.get(self._identity(), ())
                _refusals[self._identity()] = (*earlier[-REFUSALS_BORNE:], slot.refusal)
            raise
        slot.token, slot.refusal = token, None
        if self.on_token is not None:
            self.on_token(token.value)
        return token

    def _ask_for_token(self) -> Flow[Token]:
        operation = f"get a token from {self.settings.iam_endpoint}"
        response = yield from self.exchanger.exchange(
            _token_request(self.settings), operation, idempotent=True
        )
        return _read_token(response, operation, self.exchanger.clock())


def _token_request(settings: Settings) -> Request:
    """``POST /v3/auth/tokens`` (IAM API, "Obtaining a User Token Through Password")."""
    credentials = settings.credentials
    scope = {"id": settings.project_id} if settings.project_id else {"name": settings.project_name}
    user = {
        "name": credentials.user,
        "password": credentials.password,
        "domain": {"name": credentials.domain},
    }
    identity = {"methods": ["password"], "password": {"user": user}}
    return Request(
        method="POST",
        # Any value of nocatalog keeps the service catalogue, some 10 KB, out of the answer.
        url=f"{settings.iam_endpoint}/v3/auth/tokens?nocatalog=true",
        headers={"Content-Type": "application/json;charset=utf8"},
        body=json.dumps({"auth": {"identity": identity, "scope": {"project": scope}}}).encode(),
    )


def _read_token(response: Response, operation: str, now: float) -> Token:
    value = response.headers.get("x-subject-token", "")
    try:
        body: Any = json.loads(response.body)["token"]
        expires = datetime.fromisoformat(body["expires_at"])
        expires_at = (expires if expires.tzinfo else expires.replace(tzinfo=UTC)).timestamp()
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise failures.bad_response(response, operation, "the answer is not a token") from None
    if not value:
        raise failures.bad_response(response, operation, "the answer has no X-Subject-Token")
    project = _mapping(body.get("project"))
    return Token(
        value=value,
        expires_at=expires_at,
        renew_at=expires_at - min(RENEW_AHEAD, 0.1 * max(0.0, expires_at - now)),
        project_id=_text(project.get("id")),
        project_name=_text(project.get("name")),
        user_name=_text(_mapping(body.get("user")).get("name")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

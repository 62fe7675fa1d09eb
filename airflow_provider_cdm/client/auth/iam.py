"""Tokens of IAM: the request for one, and the answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.sansio import Request, Response
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from airflow_provider_cdm.client.text import read_json

#: Seconds before its expiry at which a token is renewed, so that it does not expire during a call.
RENEW_AHEAD = 300.0
#: Seconds for which a new token is used even if it seems to have expired.
_SHORTEST_LIFE = 60.0
#: Seconds after which a token is replaced even if IAM says that it is valid for longer; usual are
#: 24 hours.
_LONGEST_LIFE = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Token:
    """An IAM token and its scope.

    :param value: value of the header ``X-Auth-Token``.
    :param expires_at: when the token expires, by the monotonic clock of this process.
    :param renew_at: when to request the next token, by the same clock.
    :param project_id: id of the project that the token is valid for.
    :param project_name: name of that project.
    :param user_name: name of the user that the token was issued to.
    """

    value: str = field(repr=False)
    expires_at: float
    renew_at: float
    project_id: str | None = None
    project_name: str | None = None
    user_name: str | None = None

    def moved(self, seconds: float) -> Token:
        """Return the same token for a clock that is ahead by some seconds."""
        times = self.expires_at + seconds, self.renew_at + seconds
        return replace(self, expires_at=times[0], renew_at=times[1])

    def apply(self, request: Request) -> Request:
        """Return the request with this token."""
        return replace(
            request,
            headers={**request.headers, "X-Auth-Token": self.value},
            secrets=(*request.secrets, self.value),
        )


def scope_of(settings: Settings) -> tuple[str, str]:
    """Return what a token is requested for: a kind of scope, and its id or name."""
    if settings.project_id:
        return "project", settings.project_id
    return ("named project", settings.project_name) if settings.project_name else ("account", "")


def request_body(settings: Settings, *, for_agency: bool) -> dict[str, Any]:
    """Return the value of ``auth`` in a request for a token.

    See "Obtaining a User Token Through Password Authentication" and "Obtaining an Agency Token"
    in IAM's API reference.
    """
    credentials, agency = settings.credentials, settings.agency
    kind, value = scope_of(settings)
    scope: dict[str, Any] = {"project": {"id" if kind == "project" else "name": value}}
    if for_agency and agency is not None:
        assume = {"domain_name": agency.domain, "agency_name": agency.name}
        return {
            "identity": {"methods": ["assume_role"], "assume_role": assume},
            "scope": scope,
        }
    if not isinstance(credentials, PasswordCredentials):
        raise RuntimeError("A token needs a password, or an authenticator that requests it")
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


def read_token(response: Response, operation: str, exchanger: Exchanger) -> Token:
    """Return the token in an answer.

    How long it is valid is judged by IAM's clock alone: a machine whose clock is ahead would take
    it for expired, and request one for each call.

    :param operation: what was tried, to complete the sentence "Could not ...".
    :param exchanger: provides the clocks.
    :raises CdmBadResponse: when the answer is no token.
    """
    value = response.headers.get("x-subject-token", "")
    try:
        body: Any = read_json(response.body)["token"]
        expires = _instant(body["expires_at"])
    except (ValueError, KeyError, TypeError, OverflowError):
        raise error_mapping.bad_response(
            response, operation, "the response is not a token"
        ) from None
    # A folded header contains line breaks, and cannot be sent in a request.
    if not value or not value.isascii() or not value.isprintable():
        raise error_mapping.bad_response(response, operation, "the response has no X-Subject-Token")
    project = _mapping(body.get("project"))
    life = _life(expires, body.get("issued_at"), exchanger)
    expires_at = exchanger.uptime() + life
    return Token(
        value=value,
        expires_at=expires_at,
        renew_at=expires_at - min(RENEW_AHEAD, 0.1 * life),
        project_id=_text(project.get("id")),
        project_name=_text(project.get("name")),
        user_name=_text(_mapping(body.get("user")).get("name")),
    )


def with_advice(failure: errors.CdmError, settings: Settings) -> errors.CdmError:
    """Return the error to raise for a refused request for a token.

    A wrong project or region is a fault of the connection, whatever IAM calls it; as "not found",
    it could be taken for a job that does not exist.

    :param failure: how the request failed.
    :param settings: settings whose project the token was requested for.
    """
    reason = failure.message.removesuffix(failure.advice).lower()
    if isinstance(failure, errors.CdmNotFound):
        failure.advise(_advice_for_unknown(settings, reason))
        status, code, request_id = failure.http_status, failure.code, failure.request_id
        failure = errors.CdmConfigError(
            failure.message, http_status=status, code=code, request_id=request_id
        )
        failure.concerns_project = True
    elif _gives_no_reason(failure, reason) and not settings.agency:
        failure.add_detail(
            " IAM may also answer so where the project is wrong: check Region and Project ID."
        )
    return failure


def _gives_no_reason(failure: errors.CdmError, reason: str) -> bool:
    """Return whether IAM does not say what is wrong, as where the id of a project is."""
    refused = failure.http_status in (400, 401) and failure.code is None
    return refused and "password" not in reason


def _advice_for_unknown(settings: Settings, reason: str) -> str:
    """Return the advice for IAM's 404, which may be about the project, the account or the agency.

    :param reason: what IAM said, in lower case.
    """
    kind, value = scope_of(settings)
    if settings.agency and "project" not in reason:
        what, fields = f"agency {settings.agency.name!r}", "Agency Name and Agency Account Name"
    elif kind == "account":
        what, fields = "the account", "Account Name"
    else:
        what = f"project {value!r}"
        fields = "Project ID" if kind == "project" else "Region, or fill in Project ID,"
    return (
        f"IAM does not know {what}: check {fields} in the connection, and that IAM Endpoint is the"
        " one of its cloud."
    )


def _life(expires: float, issued_at: Any, exchanger: Exchanger) -> float:
    """Return for how many seconds a token is valid that has just been issued."""
    with suppress(ValueError, TypeError, OverflowError):
        if (life := expires - _instant(issued_at)) > 0:
            return min(life, _LONGEST_LIFE)
    # Whatever the clocks say, a token that was just issued is valid for a moment.
    return min(max(_SHORTEST_LIFE, expires - exchanger.server_time()), _LONGEST_LIFE)


def _instant(text: str) -> float:
    instant = datetime.fromisoformat(text)
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


def from_cached(fields: Mapping[str, Any] | None) -> Token | None:
    """Return a saved token; ``None`` if it is none, as from another version of this package."""
    texts = ("value", "project_id", "project_name", "user_name")
    times = ("expires_at", "renew_at")
    if fields is None or set(fields) != {*texts, *times}:
        return None
    given = [fields[name] for name in texts]
    if not all(text is None or (isinstance(text, str) and text.isprintable()) for text in given):
        return None
    instants = [fields[name] for name in times]
    if not all(type(instant) in (int, float) and abs(instant) < 1e11 for instant in instants):
        return None
    value = fields["value"]
    return Token(**fields) if value and value.isascii() else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

"""Flows, and the steps that they yield: control flow without input or output ("sans I/O").

A *flow* is a generator that contains control flow (authorize, retry, wait) and performs no input or
output. A driver (``session``) performs each step that the flow yields, and sends the result back:

* a :class:`Request`: a :class:`Response`, or a :class:`TransportError` is raised in the flow
* a :class:`Sleep` or a :class:`Save`: ``None``
* an :class:`Offload`: what its function returns

So the same flow runs on a worker's thread, on the triggerer's event loop, and in a test without
sockets and clocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias, TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Headers and body may contain credentials, so neither appears in the ``repr``.

    :param method: HTTP method in capitals.
    :param url: absolute URL, percent-encoded; it is sent exactly as given.
    :param headers: headers of the request; the transport adds its own.
    :param body: bytes to send; ``None`` for no body.
    :param secrets: secrets in the request, which must not be shown even if a server repeats them.
    :param time_limit: seconds that the exchange may take in all; the transport has a limit as well.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    time_limit: float = math.inf


@dataclass(frozen=True, slots=True)
class Response:
    """One complete HTTP response.

    :param status: HTTP status code.
    :param headers: headers, with names in lower case.
    :param body: body without transfer and content encoding.
    :param secrets: secrets of the request, which the response may repeat.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Sleep:
    """Pause the flow.

    :param seconds: length of the pause; never negative.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Save:
    """Store a record before the flow continues.

    :param record: plain JSON that replaces the stored record; ``None`` deletes it.
    """

    record: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Offload:
    """Call a function that may block, such as one that reads a file, outside the event loop.

    :param work: function without arguments; an error that it raises ends the flow.
    """

    work: Callable[[], Any]


class Obstacle(Enum):
    """What kept an exchange from taking place; each needs other advice."""

    NAME = "the name of the server cannot be resolved"
    REFUSED = "the connection is refused"
    NO_ROUTE = "no connection in time"
    CERTIFICATE = "the certificate is not accepted"
    PROXY = "the proxy cannot be used"


class TransportError(Exception):
    """No usable HTTP response arrived.

    :param reason: description of the failure, without credentials.
    :param sent: whether the request may have reached the server. ``False`` only when that is
        certain (connection refused, name not found, certificate not trusted).
    :param obstacle: what kept the exchange from taking place, if that is known.
    """

    def __init__(self, reason: str, *, sent: bool, obstacle: Obstacle | None = None) -> None:
        super().__init__(reason, sent)
        self.reason = reason
        self.sent = sent
        self.obstacle = obstacle

    def __reduce__(self) -> tuple[object, ...]:
        return _restore_transport_error, (self.reason, self.sent, self.obstacle)


def _restore_transport_error(
    reason: str, sent: bool, obstacle: Obstacle | None = None
) -> TransportError:
    return TransportError(reason, sent=sent, obstacle=obstacle)


Step: TypeAlias = Request | Sleep | Save | Offload
Flow: TypeAlias = Generator[Step, Any, T]


def send_request(request: Request) -> Flow[Response]:
    """Send a request and return the response.

    :raises TransportError: when no usable response arrives.
    """
    response = yield request
    if not isinstance(response, Response):
        raise RuntimeError("A driver must send a Response for a Request")
    return response


def save(record: Mapping[str, Any] | None) -> Flow[None]:
    """Store a record, or delete the stored one if ``record`` is ``None``.

    :raises CdmJournalError: when that is not possible.
    """
    yield Save(record)


def offload(work: Callable[[], T]) -> Flow[T]:
    """Call a function that may block, outside the event loop, and return its result."""
    return cast("T", (yield Offload(work)))


def pause(seconds: float) -> Flow[None]:
    """Pause for some seconds; do nothing if they are not above 0."""
    if seconds > 0:
        yield Sleep(seconds)

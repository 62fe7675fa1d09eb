"""What flows yield and receive: one HTTP exchange or one pause at a time.

A *flow* is a generator that contains a piece of control flow (authorise, retry, wait) and does no
input or output of its own. It yields a :class:`Request` and is sent a :class:`Response`, or has a
:class:`TransportError` thrown into it; it yields a :class:`Sleep` or a :class:`Save` and is sent
``None``, or an :class:`Offload` and is sent its result. Because of that the same flow runs on a
worker's thread, on the triggerer's event loop, and in a test with neither sockets nor clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, complete and authorised.

    Headers and body carry credentials, so neither appears in the ``repr``.

    :param method: HTTP method in capitals.
    :param url: absolute URL, percent-encoded; it goes on the wire exactly as it stands here.
    :param headers: all headers that matter to the server.
    :param body: bytes to send, or ``None`` for no body.
    :param secrets: what of it must not be shown, whatever the server does with it.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer, read to its end.

    :param status: HTTP status code.
    :param headers: header names in lower case.
    :param body: decoded of its transfer and content encoding.
    :param secrets: of the request; the answer may repeat them.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Sleep:
    """A pause.

    :param seconds: how long; never negative.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Save:
    """Write this down before anything else happens; the driver answers when it is safe.

    :param record: plain JSON to keep in place of what was kept before, ``None`` to forget it.
    """

    record: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Offload:
    """A piece of work that may block, such as reading a file; done beside the event loop.

    :param work: called once, without arguments; what it raises ends the flow.
    """

    work: Callable[[], Any]


class TransportError(Exception):
    """No usable HTTP answer arrived.

    :param reason: what went wrong, without credentials.
    :param sent: whether the request may have reached the server. ``False`` only when that is
        certain (connection refused, name not found, certificate not trusted).
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason, sent)
        self.reason = reason
        self.sent = sent

    def __reduce__(self) -> tuple[object, ...]:
        return _transport_error, (self.reason, self.sent)


def _transport_error(reason: str, sent: bool) -> TransportError:
    return TransportError(reason, sent=sent)


Step: TypeAlias = Request | Sleep | Save | Offload
Flow: TypeAlias = Generator[Step, Any, T]


def ask(request: Request) -> Flow[Response]:
    """Perform one exchange.

    :raises TransportError: when the driver could not get an answer.
    """
    response = yield request
    if not isinstance(response, Response):
        raise RuntimeError("A driver must answer a Request with a Response")
    return response


def save(record: Mapping[str, Any] | None) -> Flow[None]:
    """Have a record kept, or forgotten.

    :raises CdmJournalError: when that is not possible.
    """
    yield Save(record)


def offload(work: Callable[[], T]) -> Flow[T]:
    """Do something that may block where that disturbs nobody, and return what it returns."""
    return cast("T", (yield Offload(work)))


def pause(seconds: float) -> Flow[None]:
    """Wait for some seconds; zero and below do not pause at all."""
    if seconds > 0:
        yield Sleep(seconds)

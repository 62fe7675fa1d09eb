"""The error texts of failed runs."""

from __future__ import annotations

import traceback
from collections.abc import Iterator


def first_line(exc: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class.

    :param exc: cause of the failure.
    """
    return str(exc).partition("\n")[0] or type(exc).__name__


def stack_trace(exc: BaseException) -> Iterator[str]:
    """Yield the lines of a stack trace in CDM's format, which is that of Java.

    The lines contain no paths of files.

    :param exc: cause of the failure.
    """
    yield "".join(traceback.format_exception_only(exc)).rstrip()
    for frame, line in reversed(list(traceback.walk_tb(exc.__traceback__))):
        yield f"\tat {frame.f_globals.get('__name__')}.{frame.f_code.co_name}(:{line})"
    if exc.__cause__ is not None:
        first, *others = stack_trace(exc.__cause__)
        yield from (f"Caused by: {first}", *others)

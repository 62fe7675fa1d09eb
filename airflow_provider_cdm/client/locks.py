"""Locks that a forked process does not inherit in the state that they had in its parent."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from weakref import WeakSet


class ProcessLock:
    """A lock between the threads of one process.

    In a process that is forked while a thread of the parent holds the lock, there is no such
    thread that could release it. So it is free there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire the lock; see :meth:`threading.Lock.acquire`."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


_locks: WeakSet[ProcessLock] = WeakSet()


def _free_all() -> None:
    for lock in _locks:
        lock._lock = threading.Lock()  # noqa: SLF001 - same module


os.register_at_fork(after_in_child=_free_all)

"""Lines that a slow fixture prints while it runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


class Progress:
    """Prints lines with the elapsed time, although pytest captures the output.

    :param config: configuration of the pytest session.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._capture: Any = config.pluginmanager.getplugin("capturemanager")
        self._reporter: Any = config.pluginmanager.getplugin("terminalreporter")
        self._started_at = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print a line."""
        with self._capture.global_and_fixture_disabled():
            self._reporter.ensure_newline()
            seconds = time.monotonic() - self._started_at
            self._reporter.write_line(f"{seconds:6.1f} s  {text}", flush=True)

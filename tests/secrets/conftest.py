"""Plays the scan once for all its tests."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.secrets import connections
from tests.secrets.secret_scan import Scan

if not os.environ.get("CDM_SYSTEM"):
    # It takes minutes, and belongs to no suite that is run all the time.
    collect_ignore = ["test_scan.py"]


@pytest.fixture(scope="session")
def scan(request: pytest.FixtureRequest) -> Iterator[Scan]:
    """A scan that has been played."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    reporter: Any = request.config.pluginmanager.getplugin("terminalreporter")
    began = time.monotonic()

    def tell(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    folder = Path(tempfile.mkdtemp(prefix="cdm-secrets-"))
    try:
        with connections.simulator() as sim:
            played = Scan(folder, sim, tell)
            played.play()
            yield played
    finally:
        if os.environ.get("CDM_SYSTEM_KEEP"):
            tell(f"Everything is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)

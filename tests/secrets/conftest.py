"""Runs the scan once for all its tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.secrets import connections
from tests.secrets.secret_scan import SecretScan
from tests.support.progress import Progress

if not os.environ.get("CDM_SYSTEM"):
    # The scan takes minutes, so it is not part of the usual suite.
    collect_ignore = ["test_scan.py"]


@pytest.fixture(scope="session")
def scan(request: pytest.FixtureRequest) -> Iterator[SecretScan]:
    """A finished scan."""
    log = Progress(request.config)
    folder = Path(tempfile.mkdtemp(prefix="cdm-secrets-"))
    try:
        with connections.simulator() as sim:
            scan = SecretScan(folder, sim, log)
            scan.run()
            yield scan
    finally:
        if os.environ.get("CDM_SYSTEM_KEEP"):
            log(f"Logs and databases are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)

"""What the documentation shows works as it is shown."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_cdm.client.settings import Settings
from airflow_provider_cdm.connection import settings_from

DOCS = Path(__file__).parents[1] / "docs"
CONNECTIONS = sorted((DOCS / "snippets" / "connections").glob("*.json"))


def settings(text: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the provider makes of a connection in the environment."""
    from airflow_provider_cdm._compat import BaseHook

    monkeypatch.setenv("AIRFLOW_CONN_SHOWN", text.strip())
    return settings_from(BaseHook.get_connection("shown"))


@pytest.mark.parametrize("path", CONNECTIONS, ids=lambda path: path.stem)
def test_connections(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection that is shown is complete, and its URI means the same as its JSON."""
    by_json = settings(path.read_text(), monkeypatch)
    assert by_json == settings(path.with_suffix(".uri").read_text(), monkeypatch)
    assert by_json.region == json.loads(path.read_text())["extra"]["region"]


def test_test_module() -> None:
    """The test module that is shown for users' own tests passes."""
    module = DOCS / "snippets" / "test_with_simulator.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(module)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_code_is_included(page: Path) -> None:
    """Pages hold no code of their own that nobody runs: it comes out of files that tests run."""
    written = re.findall(r"^```(\w+)\s*$", page.read_text(), re.MULTILINE)
    assert set(written) <= {"sh", "text"}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_included_parts_exist(page: Path) -> None:
    """What a page includes is there, with the marks that it names."""
    for target, options in re.findall(
        r"^```\{literalinclude\} (\S+)\n((?::.*\n)*)", page.read_text(), re.MULTILINE
    ):
        text = (DOCS / target).read_text()
        for mark in re.findall(r'^:(?:start-after|end-before): "?(.*?)"?$', options, re.MULTILINE):
            assert mark in text

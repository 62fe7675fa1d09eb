"""A token cache that cannot be used is never the cause of a failure: each process goes on alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.auth.token_cache import token_file
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator
from tests.hostile.test_names import ended

CIPHER = Fernet(Fernet.generate_key())
#: What a file may hold in place of a field of the token.
FIELDS: dict[str, dict[str, Any]] = {
    "text as a time": {"expires_at": "soon", "renew_at": "soon"},
    "no time": {"expires_at": None},
    "an infinite time": {"expires_at": float("inf"), "renew_at": float("inf")},
    "a time that is no number": {"renew_at": float("nan")},
    "a truth as a time": {"expires_at": True},
    "a number as the value": {"value": 5},
    "a value with a line break": {"value": "MII\r\nX: 1"},
    "a value that no header can carry": {"value": "MII\u0142"},
    "an empty value": {"value": ""},
    "a list as the project": {"project_id": ["x"]},
    "a project with a line break": {"project_id": "x\n"},
    "a number as the user": {"user_name": 5},
    "another version's field": {"colour": "green"},
}


def named_pipe(path: Path) -> None:
    """Make a pipe to which nobody writes."""
    os.mkfifo(path, 0o600)


def endless_file(path: Path) -> None:
    """Make a file of a terabyte, without its content."""
    with path.open("wb") as file:
        file.truncate(2**40)
    path.chmod(0o600)


FILES: dict[str, Callable[[Path], Any]] = {
    "a named pipe": named_pipe,
    "an endless file": endless_file,
    "a folder": Path.mkdir,
    "a link to nowhere": lambda path: path.symlink_to("/nowhere/at/all"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.fixture
def go_on(sim: CdmSimulator, make_session: Any, virtual_time: Any) -> Callable[[str], None]:
    """Return a function that makes a call with a token cache, and checks that it was made."""
    sim.add_job("orders")

    def go_on(folder: str, prepare: Callable[[Path, Any], Any] | None = None) -> None:
        settings = replace(make_session().settings, token_cache=folder)
        session = CdmSession(settings, **virtual_time.options(), cipher=CIPHER)
        if prepare is not None:
            session.run(session.api.active_run(sim.cluster_id, "orders"))
            (path,) = Path(folder).glob("*.token")
            content = json.loads(CIPHER.decrypt(path.read_bytes()))
            path.unlink()
            prepare(path, content)
        factory.forget_everything()
        before = len(sim.requests)
        ended(lambda: session.run(session.api.active_run(sim.cluster_id, "orders")))
        assert [request.route for request in sim.requests[before:]] == ["token", "status"]
        session.close()

    return go_on


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("suffix", [".token", ".lock"])
def test_things_that_are_no_files(what: str, suffix: str, go_on: Any, tmp_path: Path) -> None:
    """Whatever is in the place of the file or of its lock, a call gets a token of its own."""

    def prepare(path: Path, content: Any) -> None:
        place = path.with_suffix(suffix)
        place.unlink(missing_ok=True)
        FILES[what](place)

    go_on(str(tmp_path / "tokens"), prepare)


def test_a_large_file_is_not_read(go_on: Any, tmp_path: Path) -> None:
    """A file far beyond the size of a token is not read into memory."""

    def prepare(path: Path, content: Any) -> None:
        with path.open("wb") as file:
            file.truncate(200_000_000)
        path.chmod(0o600)
        tracemalloc.start()

    try:
        go_on(str(tmp_path / "tokens"), prepare)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * 1024 * 1024


@pytest.mark.parametrize("what", FIELDS)
def test_fields_of_other_types(what: str, go_on: Any, tmp_path: Path) -> None:
    """A file with the right key and other content than expected is not used."""

    def prepare(path: Path, content: Any) -> None:
        text = json.dumps({**content, "token": {**content["token"], **FIELDS[what]}})
        path.write_bytes(CIPHER.encrypt(text.encode()))
        path.chmod(0o600)

    go_on(str(tmp_path / "tokens"), prepare)


@pytest.mark.parametrize("folder", ["~nosuchuser/tokens", "/proc/nope", "/dev/null/x", "a\x00b"])
def test_folders_that_cannot_be(
    folder: str, go_on: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot exist, or whose home folder is not known, is not used."""
    monkeypatch.chdir(tmp_path)
    go_on(folder)
    assert list(tmp_path.iterdir()) == []


def hold(release: Any) -> None:
    """Live until the parent has checked that its lock is free again."""
    release.wait(20)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_holds_no_lock(tmp_path: Path) -> None:
    """A process that is forked while a token is requested does not keep the file locked."""
    file = token_file(str(tmp_path / "tokens"), CIPHER, "identity", "secret")
    assert file is not None
    lock = file.try_lock()
    assert lock is not None
    assert lock.held
    context = multiprocessing.get_context("fork")
    release = context.Event()
    child = context.Process(target=hold, args=(release,))
    child.start()
    try:
        assert file.try_lock() is None
        lock.release()
        again = file.try_lock()
        assert again is not None
        assert again.held
    finally:
        release.set()
        child.join(20)

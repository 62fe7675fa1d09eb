"""The token cache: shared by processes, unreadable for other users, never a cause of failure."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.client.fixture_types import Drive, MakeSession, Sent

JOB = "orders"
CIPHER = Fernet(Fernet.generate_key())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the cache, which does not exist yet."""
    return tmp_path / "shared" / "tokens"


@pytest.fixture
def process(
    make_session: MakeSession, folder: Path, virtual_time: Any, drive: Drive, sim: CdmSimulator
) -> Iterator[Callable[..., Any]]:
    """Return a function that acts as another process: it makes one call and returns its token."""
    sim.add_job(JOB)
    opened: list[CdmSession] = []

    def process(cipher: Any = CIPHER, **extra: Any) -> str:
        factory.forget_everything()
        settings = make_session(token_cache=str(folder), **extra).settings
        session = CdmSession(settings, **virtual_time.options(), cipher=cipher)
        opened.append(session)
        drive(session, session.api.active_run(sim.cluster_id, JOB))
        return str(sim.requests[-1].headers["x-auth-token"])

    yield process
    for session in opened:
        session.close()


Process = Callable[..., str]


def test_processes_share_a_token(process: Process, sent: Sent) -> None:
    """Later processes use the token of the first one."""
    assert process() == process() == process()
    assert len(sent("token")) == 1


def test_off_by_default(make_session: MakeSession, drive: Drive, tmp_path: Path) -> None:
    """Nothing is written unless the connection names a folder."""
    session = make_session()
    assert session.settings.token_cache is None
    drive(session, session.api.auth.authorize())
    assert list(tmp_path.iterdir()) == []


def test_only_the_owner_can_read(process: Process, folder: Path) -> None:
    """Only the owner can read the files, and they contain no token or password in plain text."""
    umask = os.umask(0)
    try:
        token = process()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert token.encode() not in file.read_bytes()
        assert "airflow" not in file.name
    assert sorted(file.suffix for file in folder.iterdir()) == [".lock", ".token"]


@pytest.mark.parametrize(
    "other",
    [{"login": "other"}, {"password": "wrong"}, {"project_id": None}, {"iam_endpoint": None}],
    ids=str,
)
@pytest.mark.parametrize(
    "config",
    [{"users": [{"name": "airflow", "password": "p"}, {"name": "other", "password": "p"}]}],
    ids=["two users"],
)
def test_only_the_same_credentials_share(
    other: dict[str, Any], process: Process, sim: CdmSimulator, sent: Sent
) -> None:
    """Another user, password, scope or endpoint does not get the token."""
    process()
    changed = {**other}
    if "iam_endpoint" in other:
        changed["iam_endpoint"] = sim.iam_url.replace("127.0.0.1", "localhost")
    wrong = other.get("password") == "wrong"
    with pytest.raises(errors.CdmAuthError) if wrong else contextlib.nullcontext():
        process(**changed)
    assert len(sent("token")) == 2


def test_expiry_of_a_shared_token(process: Process, clock: ManualClock, sent: Sent) -> None:
    """A token that expires soon is replaced for all processes."""
    first = process()
    clock.advance(86_400 - 300)
    second = process()
    assert first != second
    assert process() == second
    assert len(sent("token")) == 2


def test_rejected_token_is_deleted(process: Process, sim: CdmSimulator, sent: Sent) -> None:
    """A token that CDM rejects is not used by the next process."""
    first = process()
    sim.revoke_tokens()
    second = process()
    assert first != second
    assert process() == second
    assert [request.status for request in sent("status")] == [200, 401, 200, 200]


def replace_with_a_link(path: Path) -> None:
    """Replace a file with a link."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def replace_with_a_folder(path: Path) -> None:
    """Replace a file with a folder."""
    path.unlink()
    path.mkdir()


CORRUPTIONS: dict[str, Callable[[Path], Any]] = {
    "another key": lambda path: path.write_bytes(Fernet(Fernet.generate_key()).encrypt(b"{}")),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "empty": lambda path: path.write_bytes(b""),
    "no token": lambda path: path.write_bytes(CIPHER.encrypt(b'["no", "token"]')),
    "readable for others": lambda path: path.chmod(0o644),
    "a folder": replace_with_a_folder,
    "a link": replace_with_a_link,
}


@pytest.mark.parametrize("how", list(CORRUPTIONS))
def test_unusable_file(how: str, process: Process, folder: Path, sent: Sent) -> None:
    """A file that cannot be used causes a call to IAM, and no failure."""
    process()
    [path] = folder.glob("*.token")
    CORRUPTIONS[how](path)
    process()
    assert len(sent("token")) == 2


@pytest.mark.parametrize("how", ["writable for others", "a file", "cannot be created"])
def test_unusable_folder(
    how: str, process: Process, folder: Path, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    """An unusable folder causes a warning that names it, and no failure."""
    folder.parent.mkdir()
    if how == "writable for others":
        folder.mkdir()
        folder.chmod(0o777)
    elif how == "a file":
        folder.write_text("")
    else:
        folder.parent.rmdir()
        folder.parent.write_text("")
    with caplog.at_level(logging.WARNING):
        process()
        process()
    assert len(sent("token")) == 2
    assert f"The token cache {folder}" in caplog.text


_PROCESS = """
import json, sys
from cryptography.fernet import Fernet
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings

options = json.load(sys.stdin)
credentials = PasswordCredentials(**options.pop("credentials"))
cipher = Fernet(options.pop("key"))
session = CdmSession(Settings(credentials=credentials, **options), cipher=cipher)
print(session.run(session.api.auth.authorize()).value)
"""


@pytest.mark.long
@pytest.mark.parametrize("config", [{"token_seconds": 5e9}], ids=["tokens for real clocks"])
def test_twenty_processes_at_once(sim: CdmSimulator, folder: Path, sent: Sent) -> None:
    """Twenty processes that need a token at the same time make one call to IAM."""
    sim.fail("token", "delay", seconds=0.5)
    process_options = {
        "cdm_endpoint": sim.url,
        "iam_endpoint": sim.iam_url,
        "credentials": {"user": sim.user, "password": sim.password, "domain": sim.domain},
        "project_id": sim.project_id,
        "token_cache": str(folder),
        "key": Fernet.generate_key().decode(),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(20)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(process_options))
        process.stdin.close()
    tokens = set()
    for process in processes:
        assert process.stdout is not None
        tokens.add(process.stdout.read())
        process.stdout.close()
        assert process.wait(60) == 0
    assert len(tokens) == 1
    assert len(sent("token")) == 1


def test_killed_process_releases_the_lock(process: Process, folder: Path, sent: Sent) -> None:
    """The lock of a process that was killed while it requested a token is released."""
    script = (
        "import fcntl, os, sys; file = open(sys.argv[1], 'w');"
        "fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    process()
    [lock], [token] = folder.glob("*.lock"), folder.glob("*.token")
    token.unlink()
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    process()
    assert len(sent("token")) == 2


def test_waiting_for_a_lock_is_limited(
    process: Process, folder: Path, sent: Sent, virtual_time: Any
) -> None:
    """A lock that is never released delays other processes for at most a minute."""
    import fcntl

    process()
    [lock], [token] = folder.glob("*.lock"), folder.glob("*.token")
    token.unlink()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process()
    assert len(sent("token")) == 2
    assert 55 < sum(virtual_time.slept) < 65

"""Tokens on disk: shared by processes, unreadable for others, and never in the way."""

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

Drive = Callable[[CdmSession, Any], Any]
MakeSession = Callable[..., CdmSession]
Sent = Callable[..., list[Any]]

JOB = "orders"
CIPHER = Fernet(Fernet.generate_key())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the tokens go; made when it is needed."""
    return tmp_path / "shared" / "tokens"


@pytest.fixture
def process(
    make_session: MakeSession, folder: Path, virtual_time: Any, drive: Drive, sim: CdmSimulator
) -> Iterator[Callable[..., Any]]:
    """Play another process, that makes one call to CDM; returns the token that it used."""
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
    """The second process takes the token of the first."""
    assert process() == process() == process()
    assert len(sent("token")) == 1


def test_off_by_default(make_session: MakeSession, drive: Drive, tmp_path: Path) -> None:
    """Nothing is written unless the connection names a folder."""
    session = make_session()
    assert session.settings.token_cache is None
    drive(session, session.api.auth.authorize())
    assert list(tmp_path.iterdir()) == []


def test_only_the_owner_can_read(process: Process, folder: Path) -> None:
    """Files are the owner's alone, and hold neither token nor password in the open."""
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


def test_end_of_a_shared_token(process: Process, clock: ManualClock, sent: Sent) -> None:
    """A token near its end is replaced for all."""
    first = process()
    clock.advance(86_400 - 300)
    second = process()
    assert first != second
    assert process() == second
    assert len(sent("token")) == 2


def test_refused_token_is_deleted(process: Process, sim: CdmSimulator, sent: Sent) -> None:
    """A token that CDM refuses does not stay for the next process."""
    first = process()
    sim.revoke_tokens()
    second = process()
    assert first != second
    assert process() == second
    assert [request.status for request in sent("status")] == [200, 401, 200, 200]


def replace_by_a_link(path: Path) -> None:
    """Put a link in the place of a file."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def replace_by_a_folder(path: Path) -> None:
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


SPOILT: dict[str, Callable[[Path], Any]] = {
    "another key": lambda path: path.write_bytes(Fernet(Fernet.generate_key()).encrypt(b"{}")),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "empty": lambda path: path.write_bytes(b""),
    "no token": lambda path: path.write_bytes(CIPHER.encrypt(b'["no", "token"]')),
    "readable for others": lambda path: path.chmod(0o644),
    "a folder": replace_by_a_folder,
    "a link": replace_by_a_link,
}


@pytest.mark.parametrize("how", list(SPOILT))
def test_spoilt_file(how: str, process: Process, folder: Path, sent: Sent) -> None:
    """A file that cannot be used costs a call to IAM, and no task fails for it."""
    process()
    [path] = folder.glob("*.token")
    SPOILT[how](path)
    process()
    assert len(sent("token")) == 2


@pytest.mark.parametrize("how", ["writable for others", "a file", "not to be made"])
def test_unusable_folder(
    how: str, process: Process, folder: Path, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that will not do is not used, with a warning that names it."""
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

wish = json.load(sys.stdin)
credentials = PasswordCredentials(**wish.pop("credentials"))
cipher = Fernet(wish.pop("key"))
session = CdmSession(Settings(credentials=credentials, **wish), cipher=cipher)
print(session.run(session.api.auth.authorize()).value)
"""


@pytest.mark.parametrize("config", [{"token_seconds": 5e9}], ids=["tokens for real clocks"])
def test_twenty_processes_at_once(sim: CdmSimulator, folder: Path, sent: Sent) -> None:
    """Twenty processes that need a token at the same time make one call to IAM."""
    sim.fail("token", "delay", seconds=0.5)
    wish = {
        "cdm_endpoint": sim.url,
        "iam_endpoint": sim.iam_url,
        "credentials": {"user": sim.user, "password": sim.password, "domain": sim.domain},
        "project_id": sim.project_id,
        "token_cache": str(folder),
        "key": Fernet.generate_key().decode(),
    }
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(20)
    ]
    for request in crowd:
        assert request.stdin is not None
        request.stdin.write(json.dumps(wish))
        request.stdin.close()
    tokens = set()
    for request in crowd:
        assert request.stdout is not None
        tokens.add(request.stdout.read())
        request.stdout.close()
        assert request.wait(60) == 0
    assert len(tokens) == 1
    assert len(sent("token")) == 1


def test_killed_process_blocks_nobody(process: Process, folder: Path, sent: Sent) -> None:
    """The lock of a process that died while it asked IAM is free again."""
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


def test_patience_has_an_end(process: Process, folder: Path, sent: Sent, virtual_time: Any) -> None:
    """A lock that is never released delays the others for a minute at most."""
    import fcntl

    process()
    [lock], [token] = folder.glob("*.lock"), folder.glob("*.token")
    token.unlink()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process()
    assert len(sent("token")) == 2
    assert 55 < sum(virtual_time.slept) < 65

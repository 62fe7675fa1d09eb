"""Credentials that are replaced while a session lasts: looked up again, and used from then on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.auth import access_key, rotation
from airflow_provider_cdm.client.auth import token as token_module
from airflow_provider_cdm.client.auth.rotation import LOOK_UP_PAUSE
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import KeyCredentials, PasswordCredentials, Settings
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from demo.processes import wait_until
from tests.client.fixture_types import Drive, MakeSession, Sent
from tests.support.credentials import KEYS

JOB = "orders"
OLD, NEW = "the 0ld passw0rd", "the n3w passw0rd"
NEW_KEYS = {"access_key": "AKEXAMPLE0000000002", "secret_key": "SKexample/000+0000000002"}
CONFIG = {"users": [{"name": "airflow", "password": OLD, "access_keys": [KEYS]}]}
pytestmark = pytest.mark.parametrize("config", [CONFIG], ids=[""])


class Connection:
    """A connection that a person changes, and that counts how often it is looked up."""

    def __init__(self, settings: Settings) -> None:
        self.settings = replace(settings, conn_id="cdm_default")
        self.error: Exception | None = None
        self.look_ups = 0

    def look_up(self) -> Settings:
        """Return the settings that it holds now."""
        self.look_ups += 1
        if self.error is not None:
            raise self.error
        return self.settings

    def change(self, **changes: Any) -> None:
        """Change some settings."""
        self.settings = replace(self.settings, **changes)

    def set_password(self, password: str) -> None:
        """Change the password."""
        assert isinstance(self.settings.credentials, PasswordCredentials)
        self.change(credentials=replace(self.settings.credentials, password=password))


@pytest.fixture
def connection(make_session: MakeSession) -> Connection:
    """Return a connection with the configured password."""
    return Connection(make_session().settings)


@pytest.fixture
def open_session(connection: Connection, virtual_time: Any) -> Callable[[], CdmSession]:
    """Return a function that opens a session with what the connection holds."""
    return lambda: CdmSession(
        connection.settings, **virtual_time.options(), look_up=connection.look_up
    )


@pytest.fixture
def read_status(drive: Drive, sim: CdmSimulator) -> Callable[[CdmSession], Any]:
    """Return a function that makes one status call."""
    sim.add_job(JOB)
    return lambda session: drive(session, session.api.call(runs.status(sim.cluster_id, JOB)))


OpenSession = Callable[[], CdmSession]
ReadStatus = Callable[[CdmSession], Any]


def test_new_password_is_used_before_the_old_one_is_sent_again(
    connection: Connection,
    open_session: OpenSession,
    read_status: ReadStatus,
    sim: CdmSimulator,
    sent: Sent,
) -> None:
    """Where a token is refused, the connection is looked up before a password is sent."""
    session = open_session()
    read_status(session)
    sim.rotate(password=NEW)
    connection.set_password(NEW)
    read_status(session)
    assert [request.status for request in sent("token")] == [201, 201]
    assert connection.look_ups == 1


def test_new_access_key_is_used(
    connection: Connection,
    open_session: OpenSession,
    read_status: ReadStatus,
    sim: CdmSimulator,
    sent: Sent,
) -> None:
    """A refused access key is replaced by that of the connection, and the call succeeds."""
    connection.change(credentials=KeyCredentials(**KEYS))
    session = open_session()
    read_status(session)
    sim.rotate(access_keys=[NEW_KEYS])
    connection.change(credentials=KeyCredentials(**NEW_KEYS))
    read_status(session)
    assert [request.status for request in sent("status")] == [200, 401, 200]


def test_password_is_replaced_by_an_access_key(
    connection: Connection, open_session: OpenSession, read_status: ReadStatus, sim: CdmSimulator
) -> None:
    """The connection may hold another kind of credentials than before."""
    session = open_session()
    read_status(session)
    sim.rotate(password=NEW)
    connection.change(credentials=KeyCredentials(**KEYS))
    read_status(session)
    sim.rotate(access_keys=[])
    connection.change(credentials=PasswordCredentials(sim.user, NEW, sim.domain))
    session.api.exchanger.clock()
    with pytest.raises(errors.CdmAuthError):
        read_status(session)


@pytest.mark.parametrize("pause", [0.0, LOOK_UP_PAUSE - 1, LOOK_UP_PAUSE])
def test_look_ups_are_seldom(
    pause: float,
    connection: Connection,
    open_session: OpenSession,
    read_status: ReadStatus,
    sim: CdmSimulator,
    clock: ManualClock,
    sent: Sent,
) -> None:
    """A connection that has not changed is looked up each half minute, by all its sessions once."""
    sessions = [open_session(), open_session()]
    read_status(sessions[0])
    sim.rotate(password=NEW)
    for session in sessions * 3:
        with pytest.raises(errors.CdmAuthError, match="'cdm_default' was looked up again"):
            read_status(session)
    assert connection.look_ups == 1
    assert [request.status for request in sent("token")] == [201, 401]
    connection.set_password(NEW)
    clock.advance(pause)
    for session in sessions:
        if pause == LOOK_UP_PAUSE:
            read_status(session)
        else:
            with pytest.raises(errors.CdmAuthError):
                read_status(session)
    assert connection.look_ups == 1 + (pause == LOOK_UP_PAUSE)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (RuntimeError("https://vault/?token=s3cret"), r"\(RuntimeError\)"),
        (errors.CdmConfigError("Region is missing"), r"\(Region is missing\)"),
    ],
)
def test_failed_look_up(
    error: Exception,
    shown: str,
    connection: Connection,
    open_session: OpenSession,
    read_status: ReadStatus,
    sim: CdmSimulator,
    clock: ManualClock,
    log: pytest.LogCaptureFixture,
) -> None:
    """A look-up that fails shows nothing secret, is tried again, and is marked in the error."""
    session = open_session()
    read_status(session)
    sim.rotate(password=NEW)
    connection.set_password(NEW)
    connection.error = error
    with pytest.raises(errors.CdmAuthError, match=f"not be looked up again {shown}") as caught:
        read_status(session)
    assert caught.value.connection_unread
    assert "s3cret" not in log.text
    connection.error = None
    clock.advance(LOOK_UP_PAUSE)
    read_status(session)


def test_look_up_that_hangs(
    connection: Connection,
    open_session: OpenSession,
    read_status: ReadStatus,
    sim: CdmSimulator,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call does not wait for a slow look-up, and a later one uses what that has found."""
    monkeypatch.setattr(rotation, "_PATIENCE", 0.01)
    monkeypatch.setattr(rotation, "_QUEUE_SECONDS", 0.01)
    answered, look_up = threading.Event(), connection.look_up
    ended: list[bool] = []

    def slow() -> Settings:
        answered.wait(30)
        ended.append(True)
        return look_up()

    monkeypatch.setattr(connection, "look_up", slow)
    session = open_session()
    read_status(session)
    sim.rotate(password=NEW)
    connection.set_password(NEW)
    for _ in range(2):
        with pytest.raises(errors.CdmAuthError, match="no answer within"):
            read_status(session)
    answered.set()
    with session._auth._shared.lock:  # held until the look-up has ended
        assert ended
    read_status(session)


def test_credentials_for_another_endpoint_are_not_sent(
    connection: Connection,
    open_session: OpenSession,
    read_status: ReadStatus,
    sim: CdmSimulator,
    sent: Sent,
) -> None:
    """What the connection holds for other endpoints is not sent to those of the session."""
    session = open_session()
    read_status(session)
    sim.rotate(password=NEW)
    connection.set_password(NEW)
    connection.change(iam_endpoint="https://iam.elsewhere.example")
    with pytest.raises(errors.CdmAuthError, match="now names other endpoints"):
        read_status(session)
    assert NEW not in "".join(str(request.json()) for request in sent("token"))


def test_project_of_the_session_stays(
    connection: Connection, open_session: OpenSession, read_status: ReadStatus, sim: CdmSimulator
) -> None:
    """A session goes on in its project and cluster, whatever the connection names now."""
    session = open_session()
    read_status(session)
    sim.rotate(password=NEW)
    connection.set_password(NEW)
    connection.change(project_id="f" * 32, cluster_id="other", read_timeout=5.0)
    read_status(session)
    settings = session.settings
    assert (settings.project_id, settings.cluster_id) == (sim.project_id, sim.cluster_id)
    assert settings.read_timeout == 5.0


def test_refused_renewal_goes_on_with_the_old_token(
    connection: Connection,
    open_session: OpenSession,
    read_status: ReadStatus,
    sim: CdmSimulator,
    clock: ManualClock,
    sent: Sent,
) -> None:
    """While an old token is valid, a refused renewal ends no call; a new password renews it."""
    session = open_session()
    read_status(session)
    clock.advance(86_400 - 299)
    sim.fail("token", "status", status=401, times=1)
    for _ in range(3):
        read_status(session)
        clock.advance(10)
    assert [request.status for request in sent("token")] == [201, 401]
    assert connection.look_ups == 1
    connection.set_password(NEW)
    sim.rotate(password=NEW)
    clock.advance(LOOK_UP_PAUSE)
    read_status(session)
    assert [request.status for request in sent("token")] == [201, 401, 201]


@pytest.mark.parametrize("kind", ["password", "access key"])
def test_single_refusal_is_no_failure(
    kind: str,
    connection: Connection,
    open_session: OpenSession,
    read_status: ReadStatus,
    sim: CdmSimulator,
) -> None:
    """One refusal by a gateway that has accepted the credentials before fails no call."""
    if kind == "access key":
        connection.change(credentials=KeyCredentials(**KEYS))
    session = open_session()
    for _ in range(3):
        read_status(session)
        sim.fail("status", "status", status=401)
    read_status(session)


@pytest.mark.parametrize("route", ["token", "status"])
@pytest.mark.parametrize("kind", ["password", "access key"])
def test_refusal_by_a_proxy(
    kind: str,
    route: str,
    connection: Connection,
    open_session: OpenSession,
    read_status: ReadStatus,
    sim: CdmSimulator,
    clock: ManualClock,
) -> None:
    """When a proxy refuses its user, the connection is looked up; nobody else is blocked."""
    if kind == "access key":
        connection.change(credentials=KeyCredentials(**KEYS))
    session = open_session()
    connection.change(read_timeout=5.0)
    sim.fail(route, "status", status=407)
    read_status(session)
    sim.faults.clear()
    clock.advance(86_400)
    sim.fail(route, "status", status=407)
    if kind == "password" or route == "status":
        with pytest.raises(errors.CdmAuthError, match="proxy's URL"):
            read_status(session)
    read_status(session)


def test_many_threads_look_up_once(
    connection: Connection, open_session: OpenSession, sim: CdmSimulator, sent: Sent
) -> None:
    """Calls that are refused at once share one look-up, and the old password is not sent again."""
    sim.add_job(JOB)
    session = open_session()
    call = runs.status(sim.cluster_id, JOB)
    session.run(session.api.call(call))
    sim.rotate(password=NEW)
    connection.set_password(NEW)
    barrier = threading.Barrier(16)

    def read(_: int) -> Any:
        barrier.wait(30)
        return session.run(session.api.call(call))

    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(read, range(16)))) == 16
    assert connection.look_ups == 1
    assert {request.status for request in sent("token")} == {201}
    session.close()


def test_old_secrets_go(
    connection: Connection, open_session: OpenSession, read_status: ReadStatus, sim: CdmSimulator
) -> None:
    """After a change, neither the old password nor its token stays in memory."""
    session = open_session()
    read_status(session)
    old_token: Any = session.run(session.api.auth.authorize())
    sim.rotate(password=NEW)
    connection.set_password(NEW)
    read_status(session)
    gc.collect()
    passwords = {
        thing.password
        for thing in gc.get_objects()
        if type(thing) is PasswordCredentials and thing.user == sim.user
    }
    kept = {state.token.value for state in token_module._states.values() if state.token}
    # Fixtures hold a session with the old password, but no look-up and no token does.
    assert NEW in passwords
    assert old_token.value not in kept
    assert len(kept) == 1


def test_old_access_keys_go(
    connection: Connection,
    open_session: OpenSession,
    read_status: ReadStatus,
    sim: CdmSimulator,
    clock: ManualClock,
) -> None:
    """However often an access key is replaced, what is known of the earlier ones is dropped."""
    connection.change(credentials=KeyCredentials(**KEYS))
    session = open_session()
    for number in range(5):
        read_status(session)
        keys = {"access_key": f"AKEXAMPLE000000001{number}", "secret_key": f"SKexample{number}"}
        sim.rotate(access_keys=[keys])
        connection.change(credentials=KeyCredentials(**keys))
        clock.advance(LOOK_UP_PAUSE)
    assert len(access_key._states) == 1


def test_what_was_looked_up_goes_with_its_sessions(
    connection: Connection, open_session: OpenSession, read_status: ReadStatus, sim: CdmSimulator
) -> None:
    """The content of a connection, which is a secret, is kept by the sessions that use it."""
    connection.change(conn_id="of this session")
    session = open_session()
    read_status(session)
    sim.rotate(password=NEW)
    connection.set_password(NEW)
    read_status(session)
    assert "of this session" in rotation._look_ups
    session.close()
    del session

    def is_forgotten() -> bool:
        gc.collect()
        return "of this session" not in rotation._look_ups

    # A thread of the pool lets go of its last call a moment after it has returned the result.
    wait_until(is_forgotten, 10, "what was looked up is forgotten", 0.01)


def test_passwords_of_a_user_have_one_budget(
    connection: Connection,
    open_session: OpenSession,
    read_status: ReadStatus,
    sim: CdmSimulator,
    clock: ManualClock,
    sent: Sent,
) -> None:
    """However often a password is replaced by a wrong one, IAM does not lock the account."""
    session = open_session()
    read_status(session)
    sim.rotate(password="unknown to the connection")
    for number in range(40):
        connection.set_password(f"wrong {number}")
        with pytest.raises(errors.CdmAuthError):
            read_status(session)
        clock.advance(LOOK_UP_PAUSE)
    refused = [request.at for request in sent("token") if request.status == 401]
    assert refused
    assert max(sum(at <= other < at + 900 for other in refused) for at in refused) <= 3
    connection.set_password("unknown to the connection")
    clock.advance(900)
    read_status(session)

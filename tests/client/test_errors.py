"""Errors: they are sent to other processes with all attributes, and none shows a secret."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.sansio import Request, TransportError
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.simulator import CdmSimulator
from tests.client.fixture_types import Drive, MakeSession

SUBMISSION = Submission("c", "orders", "FAILED", 7, counters={"ROWS_READ": 1}, error_summary="no")


def with_subclasses(cls: type[errors.CdmError]) -> Iterator[type[errors.CdmError]]:
    """Yield a class and all its subclasses."""
    yield cls
    for subclass in cls.__subclasses__():
        yield from with_subclasses(subclass)


CLASSES = sorted(set(with_subclasses(errors.CdmError)), key=lambda cls: cls.__name__)


def make(cls: type[errors.CdmError]) -> errors.CdmError:
    """Return an error with a value in every attribute."""
    error: errors.CdmError
    if issubclass(
        cls, errors.CdmSubmissionFailed | errors.CdmWaitTimeout | errors.CdmThresholdMissed
    ):
        error = cls("what happened", SUBMISSION)
    else:
        error = cls("what happened", effect_unknown=True, retry_after=7.5)
    error.http_status, error.code, error.request_id = 500, "Cdm.0036", "r-1"
    error.retryable = not cls.default_retryable
    return error


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "copy_error",
    [copy.copy, copy.deepcopy]
    + [lambda error, p=p: pickle.loads(pickle.dumps(error, p)) for p in range(6)],
)
def test_errors_are_copied_completely(
    cls: type[errors.CdmError], copy_error: Callable[[errors.CdmError], errors.CdmError]
) -> None:
    """Every error can be copied and pickled, with class, message and all attributes."""
    error = make(cls)
    error.add_note("seen on the worker")
    restored = copy_error(error)
    assert type(restored) is cls
    assert (str(restored), restored.args) == (str(error), error.args)
    assert vars(restored) == vars(error)
    assert {"retryable", "effect_unknown", "retry_after", "__notes__"} <= vars(restored).keys()


@pytest.mark.parametrize("sent", [True, False])
def test_transport_errors_are_pickled_completely(sent: bool) -> None:
    """An error of the transport can be pickled as well."""
    restored = pickle.loads(pickle.dumps(TransportError("refused", sent=sent)))
    assert (type(restored), restored.reason, restored.sent) == (TransportError, "refused", sent)


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_as_json(cls: type[errors.CdmError]) -> None:
    """An error that a trigger reports is raised on the worker as the same error."""
    error = make(cls)
    payload = json.loads(json.dumps(errors.to_payload(error)))
    restored = errors.from_payload(payload, SUBMISSION)
    assert type(restored) is cls
    kept = ("message", "http_status", "code", "request_id", "retryable")
    assert [getattr(restored, n) for n in kept] == [getattr(error, n) for n in kept]
    if issubclass(
        cls, errors.CdmSubmissionFailed | errors.CdmWaitTimeout | errors.CdmThresholdMissed
    ):
        assert vars(restored)["submission"] == SUBMISSION


@pytest.mark.parametrize(
    ("payload", "cls"),
    [
        (None, errors.CdmBadResponse),
        ("CdmNotFound", errors.CdmBadResponse),
        ({}, errors.CdmBadResponse),
        ({"type": "CdmNotFound"}, errors.CdmBadResponse),
        ({"message": "m"}, errors.CdmError),
        ({"type": "OfALaterVersion", "message": "m"}, errors.CdmError),
        ({"type": "to_payload", "message": "m"}, errors.CdmError),
        ({"type": "Any", "message": "m"}, errors.CdmError),
        ({"type": ["CdmNotFound"], "message": "m"}, errors.CdmError),
        ({"type": "CdmSubmissionFailed", "message": "m"}, errors.CdmError),
        ({"type": "CdmWaitTimeout", "message": "m"}, errors.CdmWaitTimeout),
    ],
)
def test_any_payload_is_an_error(payload: Any, cls: type[errors.CdmError]) -> None:
    """Whatever a trigger reports as an error, the worker raises an error of this package."""
    assert type(errors.from_payload(payload)) is cls


PASSWORD, PROXY_PASSWORD = "Pa55/w0rd&of='us'", "proxyPa55"
FAILURES: dict[str, Callable[[CdmSimulator], object]] = {
    "wrong password": lambda sim: None,
    "token not JSON": lambda sim: sim.fail("token", "body", body="<html>", times=None),
    "token cut off": lambda sim: sim.fail("token", "body", "after", body='{"token": {'),
    "IAM down": lambda sim: sim.fail("token", "drop", times=None),
    "token refused": lambda sim: sim.fail("status", "status", status=401, times=None),
    "not found": lambda sim: None,
    "CDM down": lambda sim: sim.fail("status", "reset", times=None),
    "nonsense": lambda sim: sim.fail("status", "body", body="[]", times=None),
    "throttled": lambda sim: sim.fail("status", "status", status=429, times=None),
}


@pytest.mark.parametrize("config", [{"users": [{"name": "airflow", "password": PASSWORD}]}])
@pytest.mark.parametrize("failure", FAILURES)
def test_no_secret_shows(
    failure: str,
    drive: Drive,
    sim: CdmSimulator,
    make_session: MakeSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No error, log line or repr contains the password or the token, whatever the failure."""
    caplog.set_level(logging.DEBUG)
    FAILURES[failure](sim)
    wrong = {"password": f"{PASSWORD}?"} if failure == "wrong password" else {}
    session = make_session(**wrong)
    with pytest.raises(errors.CdmError) as caught:
        drive(session, session.api.active_run(sim.cluster_id, "orders"))
    shown = [*traceback.format_exception(caught.value), repr(caught.value), caplog.text]
    shown += [repr(errors.to_payload(caught.value)), repr(session), repr(session.settings)]
    shown += [repr(session.settings.credentials), repr(session.api)]
    secrets = [PASSWORD, PASSWORD.replace("'", "\\'")]
    for request in sim.requests:
        shown.append(repr(Request("PUT", "http://x", dict(request.headers), request.body)))
        secrets += [request.headers.get("x-auth-token", PASSWORD)]
    with caplog.at_level(logging.CRITICAL):
        sim.faults.clear()
        if not wrong:
            token = drive(session, session.api.auth.authorize())
            shown, secrets = [*shown, repr(token)], [*secrets, token.value]
    for secret in secrets:
        assert not [text for text in shown if secret in text]


def test_no_password_of_an_unreachable_proxy_shows(drive: Drive, make_session: MakeSession) -> None:
    """A proxy that is unreachable is named without its password."""
    session = make_session(proxy=f"http://user:{PROXY_PASSWORD}@127.0.0.1:1")
    with pytest.raises(errors.CdmUnavailable) as caught:
        drive(session, session.api.auth.authorize())
    shown = [*traceback.format_exception(caught.value), repr(session.settings), repr(session)]
    assert not [text for text in shown if PROXY_PASSWORD in text]


@pytest.mark.parametrize("port", ["bad", "0", "99999999"])
def test_no_password_of_an_invalid_proxy_shows(port: str, make_session: MakeSession) -> None:
    """A proxy with an invalid port is refused without its password."""
    with pytest.raises(errors.CdmConfigError) as caught:
        make_session(proxy=f"http://user:{PROXY_PASSWORD}@127.0.0.1:{port}")
    assert PROXY_PASSWORD not in "".join(traceback.format_exception(caught.value))

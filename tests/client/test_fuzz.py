"""Whatever a server responds, calls and flows end with a valid result or an error of this package.

These tests use no sockets; ``test_fuzz_sockets.py`` does. ``CDM_FUZZ_CASES`` sets the number of
cases (by default 2,000, the same ones each time; with another number, new ones each time).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import json
import math
import os
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, is_dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client import api, clusters, errors
from airflow_provider_cdm.client.api.call import Call
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB, LINK, Definition
from airflow_provider_cdm.client.connection_test import ConnectionTest
from airflow_provider_cdm.client.jobs import apply, stop
from airflow_provider_cdm.client.jobs.failure_report import ensure_succeeded
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.jobs.progress import outcome_line, progress_line
from airflow_provider_cdm.client.jobs.start import start_once
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRecord, StartRequest
from airflow_provider_cdm.client.sansio import Flow, Response
from airflow_provider_cdm.client.settings import Settings
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.client.text import LINE_LIMIT
from tests.support.canned_responses import TOKEN_BODY, CannedResponse, canned_responses
from tests.support.fake_server import BEGIN, CREATED, SECRETS, USERS, FakeServer, MakeFlow

# Calls and flows

_CONFIG = {"configs": [{"name": "n", "inputs": [{"name": "n.table", "value": "t"}]}]}
_LINK = {"name": "l", "connector-name": "generic-jdbc-connector", "link-config-values": _CONFIG}
_JOB = {"name": "j", "job_type": "NORMAL_JOB", "from-config-values": _CONFIG}
#: Arguments of operations by the names of their parameters.
ARGUMENTS: dict[str, list[Any]] = {
    "cluster_id": ["c"],
    "definition": [Definition(JOB, _JOB), Definition(LINK, _LINK)],
    "graceful": [True],
    "job_name": ["j"],
    "kind": [JOB, LINK],
    "mode": ["soft"],
    "name": ["j"],
    "page_no": [1],
    "variables": [{"dt": "2025-01-01"}],
}


def _calls() -> Iterator[tuple[str, str, MakeFlow]]:
    """Yield every operation of the API."""
    for info in pkgutil.iter_modules(api.__path__):
        module = importlib.import_module(f"{api.__name__}.{info.name}")
        for name, make in inspect.getmembers(module, inspect.isfunction):
            returns = str(inspect.signature(make).return_annotation)
            own = make.__module__ == module.__name__ and not name.startswith("_")
            if own and returns.startswith("Call["):
                yield from _calls_of(name, make)


def _calls_of(name: str, make: Callable[..., Call[Any]]) -> Iterator[tuple[str, str, MakeFlow]]:
    parameters = inspect.signature(make).parameters
    unknown = {p.name for p in parameters.values() if p.default is p.empty} - ARGUMENTS.keys()
    assert not unknown, f"ARGUMENTS has no value for parameters of {name}: {unknown}"
    names = [parameter for parameter in parameters if parameter in ARGUMENTS]
    for values in itertools.product(*(ARGUMENTS[parameter] for parameter in names)):
        call = make(**dict(zip(names, values, strict=True)))
        yield call.operation, name, functools.partial(_call, call)


def _call(call: Call[Any], api: CdmApi) -> Flow[Any]:
    return api.call(call)


OURS = RunRef("c", "j", submission_id=5, creation_date=CREATED)
REQUEST = StartRequest("c", "j", {"dt": "1"})


def _follow(run: RunRef) -> MakeFlow:
    return lambda api: Follower(run, created_from=CREATED).follow(
        api, poll_interval=60, deadline=BEGIN + 7200, on_status=_check_line
    )


def _check_line(seen: Submission | None) -> None:
    if seen is not None:
        sound_text(progress_line(seen, BEGIN, foreign=True), LINE_LIMIT)


FLOWS: dict[str, MakeFlow] = {
    "find the active run": lambda api: api.active_run("c", "j"),
    "find the first run": lambda api: api.first_run_since("c", "j", CREATED),
    "stop a run": lambda api: api.stop_run(OURS),
    "follow a run": _follow(OURS),
    "discover a run": _follow(RunRef("c", "j")),
    "start once": lambda api: start_once(api, REQUEST, None, StartPolicy()),
    "apply a job": lambda api: apply.apply(api, "c", Definition(JOB, _JOB)),
    "apply a link": lambda api: apply.apply(api, "c", Definition(LINK, _LINK)),
    "discard a job": lambda api: stop.delete_after_stop(api, OURS, within=60),
    "name busy jobs": lambda api: clusters.busy_jobs(api, "c"),
    "wait for a cluster": lambda api: clusters.ClusterWaiter("c", ["normal"]).wait(
        api, poll_interval=60, deadline=BEGIN + 7200, info=lambda line: sound_text(line, 2_000)
    ),
    "check a connection": lambda api: ConnectionTest(api).run(),
}
#: The operation whose responses the flow reads first, if not the status call.
READS = {
    "find the first run": "history",
    "discover a run": "history",
    "start once": "start_job",
    "apply a job": "show_job",
    "apply a link": "show",
    "name busy jobs": "list_jobs",
    "wait for a cluster": "show_cluster",
    "check a connection": "list_clusters",
}
#: By name: the call or flow, and the operation whose documented responses it reads first.
VISITS = {name: (visit, route) for name, route, visit in _calls()}
VISITS |= {name: (visit, READS.get(name, "status")) for name, visit in FLOWS.items()}

# Number of cases

CASES = int(os.environ.get("CDM_FUZZ_CASES", "2000"))
EACH = settings(
    max_examples=math.ceil(CASES / (len(VISITS) + len(USERS))),
    derandomize="CDM_FUZZ_CASES" not in os.environ,
    database=None,
    print_blob=True,
    # Shrinking a failing case takes minutes, and the cases are small.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def _several(route: str) -> st.SearchStrategy[list[CannedResponse]]:
    return st.lists(canned_responses(route), min_size=1, max_size=3)


# Checks


def sound_text(text: str, limit: int) -> None:
    """Check that a text can be logged and stored, and is not too long."""
    text.encode()
    assert "\x00" not in text
    assert len(text) <= limit


def check_value(value: Any) -> None:
    """Check that a value can be written to JSON, MessagePack, databases and logs."""
    if is_dataclass(value) and not isinstance(value, type):
        check_value(asdict(value))
    elif isinstance(value, dict):
        check_value([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            check_value(item)
    elif isinstance(value, str):
        sound_text(value, 20_000)
    elif isinstance(value, int | float):
        assert -(2**63) <= value < 2**63
    else:
        assert value is None


def sound(result: Any) -> None:
    """Check the result of a call or flow."""
    value = getattr(result, "run", result)
    check_value(value)
    runs = getattr(value, "submissions", value)
    for run in runs if isinstance(runs, list) else [runs]:
        if isinstance(run, Submission):
            sound_run(run)


def sound_run(run: Submission) -> None:
    """Check that a run can be sent to other processes and described to people."""
    check_value([run.to_dict(), run.to_payload()])
    payload = json.loads(json.dumps(run.to_payload(), allow_nan=False))
    assert Submission.from_payload(payload) == run
    for line in (progress_line(run, BEGIN, 1e6, 1e9), outcome_line(run, foreign=True)):
        sound_text(line, LINE_LIMIT)
    sound_text(str(RunRef.of(run)), 500)
    try:
        ensure_succeeded(run)
    except errors.CdmError as error:
        sound_error(error)


def sound_error(error: errors.CdmError) -> None:
    """Check that an error can be sent to other processes and logged, and shows no secret."""
    sound_text(str(error), errors.MESSAGE_LIMIT)
    for secret in SECRETS:
        assert secret not in f"{error} {error!r} {error.__dict__}"
    restored = pickle.loads(pickle.dumps(error))
    assert (type(restored), str(restored)) == (type(error), str(error))
    check_value(json.loads(json.dumps(errors.to_payload(error), allow_nan=False)))
    assert error.retry_after is None or 0 <= error.retry_after < math.inf
    submission = getattr(error, "submission", None)
    if submission is not None:
        check_value(submission.to_payload())


def _check(server: FakeServer, make_flow: MakeFlow, user: Settings) -> None:
    try:
        result = server.run(make_flow, user)
    except errors.CdmError as error:
        sound_error(error)
    else:
        sound(result)
    if server.record is not None:
        StartRecord.from_payload(server.record)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(VISITS))
def test_any_response_of_cdm(name: str) -> None:
    """Whatever CDM responds, each call and flow ends with a valid result or an error of ours."""
    visit, route = VISITS[name]

    @EACH
    @given(_several(route), st.sampled_from(sorted(USERS)))
    def check(responses: list[CannedResponse], user: str) -> None:
        _check(FakeServer(responses, "/v1.1/"), visit, USERS[user])

    check()


@pytest.mark.parametrize("user", sorted(USERS))
def test_any_response_of_iam(user: str) -> None:
    """Whatever IAM responds, a call ends with a valid result or an error of this package."""

    @EACH
    @given(_several("iam"))
    def check(responses: list[CannedResponse]) -> None:
        _check(FakeServer(responses, "/v3/"), FLOWS["find the active run"], USERS[user])

    check()


IAM_BODY, SOME_PROJECT = (
    json.dumps(TOKEN_BODY).encode(),
    b'{"projects": [{"name": "r-1", "id": "%s"}]}',
)
FAR = {"date": "Fri, 31 Dec 9999 23:59:59 -1200"}
RUN = '{"submissions": [{"status": "FAILED", "submission-id": 5, %s}]}'


def _run(rest: str) -> Response:
    return Response(200, {}, (RUN % rest).encode())


def _token_for_project(number: str) -> Response:
    body = {"token": {**TOKEN_BODY["token"], "project": {"id": number}}}
    return Response(201, {"x-subject-token": "MII"}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("user", "url_part", "response"),
    [
        ("password", "/v3/", Response(201, {"x-subject-token": "a\r\n b"}, IAM_BODY)),
        ("password", "/v3/", Response(201, {"x-subject-token": "\xff"}, IAM_BODY)),
        ("password, project by name", "/v3/", _token_for_project("\ud800")),
        ("keys, project by name", "/v3/projects", Response(200, {}, SOME_PROJECT % b"\xc3\xa9\n")),
        ("keys", "/v1.1/", Response(401, FAR, b"")),
        ("password", "/v1.1/", Response(403, {"x-request-id": "\x00" + "x" * 60_000}, b"")),
        ("password", "/v1.1/", Response(400, {}, b'{"errCode": "\\u0000", "message": "\\ud800"}')),
        ("password", "/v1.1/", Response(500, {}, b'{"message": "' + b"w" * 100_000 + b'"}')),
        ("password", "/v1.1/", _run('"error-summary": "\\ud800\\u0000 \\u001b[31m"')),
        ("password", "/v1.1/", _run(f'"error-details": "{"w" * 100_000}"')),
        ("password", "/v1.1/", _run(f'"creation-date": {10**400}, "progress": NaN')),
        ("password", "/v1.1/", _run(f'"counters": {{"ROWS_READ": {2**64}}}')),
    ],
)
def test_found_by_fuzzing(user: str, url_part: str, response: Response) -> None:
    """Responses that once were accepted, caused an error of another package, or broke a log."""
    _check(FakeServer([response], url_part), FLOWS["follow a run"], USERS[user])


def test_long_lists_are_cut() -> None:
    """An error that lists all clusters has a limited length."""
    clusters = [{"id": f"c{n}", "name": "w" * 20_000, "status": "200"} for n in range(500)]
    responses = [Response(404), Response(200, {}, json.dumps({"clusters": clusters}).encode())]
    with pytest.raises(errors.CdmNotFound, match="Clusters of this project: c0") as caught:
        FakeServer(responses, "/v1.1/").run(FLOWS["wait for a cluster"], USERS["password"])
    sound_error(caught.value)

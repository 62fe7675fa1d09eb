"""Whatever a server answers: a sound value or a typed error, in bounded time.

Without sockets: what they add is in ``test_fuzz_sockets.py``. ``CDM_FUZZ_CASES`` sets how many
cases are played (2,000, the same ones each time; with another number, new ones each time).
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
from airflow_provider_cdm.client.jobs.progress import describe
from airflow_provider_cdm.client.jobs.start import start_once
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRecord, StartRequest
from airflow_provider_cdm.client.sansio import Flow, Response
from airflow_provider_cdm.client.settings import Settings
from airflow_provider_cdm.client.submission import RunRef, Submission
from tests.support.canned_responses import TOKEN_BODY, Answer, answers
from tests.support.fake_server import BEGIN, CREATED, SECRETS, WHO, Server, Visit

# What is visited

_CONFIG = {"configs": [{"name": "n", "inputs": [{"name": "n.table", "value": "t"}]}]}
_LINK = {"name": "l", "connector-name": "generic-jdbc-connector", "link-config-values": _CONFIG}
_JOB = {"name": "j", "job_type": "NORMAL_JOB", "from-config-values": _CONFIG}
#: What operations are called with, by the names of their parameters.
ARGUMENTS: dict[str, list[Any]] = {
    "cluster_id": ["c"],
    "definition": [Definition(JOB, _JOB), Definition(LINK, _LINK)],
    "graceful": [True],
    "job_name": ["j"],
    "kind": [JOB, LINK],
    "name": ["j"],
    "page_no": [1],
    "variables": [{"dt": "2025-01-01"}],
}


def _calls() -> Iterator[tuple[str, str, Visit]]:
    """Every operation that there is, whatever is added."""
    for found in pkgutil.iter_modules(api.__path__):
        module = importlib.import_module(f"{api.__name__}.{found.name}")
        for name, make in inspect.getmembers(module, inspect.isfunction):
            returns = str(inspect.signature(make).return_annotation)
            own = make.__module__ == module.__name__ and not name.startswith("_")
            if own and returns.startswith("Call["):
                yield from _ways_to_call(name, make)


def _ways_to_call(name: str, make: Callable[..., Call[Any]]) -> Iterator[tuple[str, str, Visit]]:
    parameters = inspect.signature(make).parameters
    unknown = {p.name for p in parameters.values() if p.default is p.empty} - ARGUMENTS.keys()
    assert not unknown, f"say what {name} is to be called with: {unknown}"
    names = [each for each in parameters if each in ARGUMENTS]
    for values in itertools.product(*(ARGUMENTS[each] for each in names)):
        call = make(**dict(zip(names, values, strict=True)))
        yield call.operation, name, functools.partial(_call, call)


def _call(call: Call[Any], api: CdmApi) -> Flow[Any]:
    return api.call(call)


OURS = RunRef("c", "j", submission_id=5, creation_date=CREATED)
ORDER = StartRequest("p", "c", "j", {"dt": "1"})


def _follow(run: RunRef) -> Visit:
    return lambda api: Follower(run, created_from=CREATED).follow(
        api, poll_interval=60, deadline=BEGIN + 7200, on_status=_read_line
    )


def _read_line(seen: Submission | None) -> None:
    if seen is not None:
        sound_text(describe(seen, BEGIN), 2_000)


FLOWS: dict[str, Visit] = {
    "find the active run": lambda api: api.active_run("c", "j"),
    "find the first run": lambda api: api.first_run_since("c", "j", CREATED),
    "stop a run": lambda api: api.stop_run(OURS),
    "follow a run": _follow(OURS),
    "discover a run": _follow(RunRef("c", "j")),
    "start once": lambda api: start_once(api, ORDER, None, StartPolicy()),
    "apply a job": lambda api: apply.apply(api, "c", Definition(JOB, _JOB)),
    "apply a link": lambda api: apply.apply(api, "c", Definition(LINK, _LINK)),
    "discard a job": lambda api: stop.delete_after_stop(api, OURS, deadline=BEGIN + 60),
    "name busy jobs": lambda api: clusters.busy_jobs(api, "c"),
    "wait for a cluster": lambda api: clusters.ClusterWaiter("c", ["normal"]).wait(
        api, poll_interval=60, deadline=BEGIN + 7200, info=lambda line: sound_text(line, 2_000)
    ),
    "check a connection": lambda api: ConnectionTest(api).run(),
}
#: The operation whose answers the flow reads first, if not the status of a job.
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
#: By name: what is done, and the documented answers to begin with.
VISITS = {name: (visit, route) for name, route, visit in _calls()}
VISITS |= {name: (visit, READS.get(name, "status")) for name, visit in FLOWS.items()}

# How many

CASES = int(os.environ.get("CDM_FUZZ_CASES", "2000"))
EACH = settings(
    max_examples=math.ceil(CASES / (len(VISITS) + len(WHO))),
    derandomize="CDM_FUZZ_CASES" not in os.environ,
    database=None,
    print_blob=True,
    # Making a failing case small takes minutes, and the cases are small enough.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def _several(route: str) -> st.SearchStrategy[list[Answer]]:
    return st.lists(answers(route), min_size=1, max_size=3)


# What must hold


def sound_text(text: str, limit: int) -> None:
    """Text that can be logged and stored, and is of bounded length."""
    text.encode()
    assert "\x00" not in text
    assert len(text) <= limit


def bearable(value: Any) -> None:
    """A value that every way out of here can carry: JSON, MessagePack, databases, logs."""
    if is_dataclass(value) and not isinstance(value, type):
        bearable(asdict(value))
    elif isinstance(value, dict):
        bearable([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for each in value:
            bearable(each)
    elif isinstance(value, str):
        sound_text(value, 20_000)
    elif isinstance(value, int | float):
        assert -(2**63) <= value < 2**63
    else:
        assert value is None


def sound(found: Any) -> None:
    """What a call or a flow returns."""
    value = getattr(found, "run", found)
    bearable(value)
    runs = getattr(value, "submissions", value)
    for run in runs if isinstance(runs, list) else [runs]:
        if isinstance(run, Submission):
            sound_run(run)


def sound_run(run: Submission) -> None:
    """A run: it crosses to other processes, and people read about it."""
    bearable([run.to_dict(), run.to_payload()])
    payload = json.loads(json.dumps(run.to_payload(), allow_nan=False))
    assert Submission.from_payload(payload) == run
    sound_text(describe(run, BEGIN), 2_000)
    sound_text(str(RunRef.of(run)), 500)
    try:
        ensure_succeeded(run)
    except errors.CdmError as error:
        sound_error(error)


def sound_error(error: errors.CdmError) -> None:
    """An error that can cross processes, be logged, and gives nothing away."""
    sound_text(str(error), errors.MESSAGE_LIMIT)
    for secret in SECRETS:
        assert secret not in f"{error} {error!r} {error.__dict__}"
    poll_again = pickle.loads(pickle.dumps(error))
    assert (type(poll_again), str(poll_again)) == (type(error), str(error))
    bearable(json.loads(json.dumps(errors.to_payload(error), allow_nan=False)))
    assert error.retry_after is None or 0 <= error.retry_after < math.inf
    seen = getattr(error, "submission", None)
    if seen is not None:
        bearable(seen.to_payload())


def _check(server: Server, visit: Visit, who: Settings) -> None:
    try:
        found = server.play(visit, who)
    except errors.CdmError as error:
        sound_error(error)
    else:
        sound(found)
    if server.record is not None:
        StartRecord.from_payload(server.record)


@pytest.mark.parametrize("name", sorted(VISITS))
def test_any_answer_of_cdm(name: str) -> None:
    """Whatever CDM answers, every operation and flow ends with a sound value or a typed error."""
    visit, route = VISITS[name]

    @EACH
    @given(_several(route), st.sampled_from(sorted(WHO)))
    def check(drawn: list[Answer], who: str) -> None:
        _check(Server(drawn, "/v1.1/"), visit, WHO[who])

    check()


@pytest.mark.parametrize("who", sorted(WHO))
def test_any_answer_of_iam(who: str) -> None:
    """Whatever IAM answers, a call ends with a sound value or a typed error, and is well formed."""

    @EACH
    @given(_several("iam"))
    def check(drawn: list[Answer]) -> None:
        _check(Server(drawn, "/v3/"), FLOWS["find the active run"], WHO[who])

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
    ("who", "route", "answer"),
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
def test_found_by_fuzzing(who: str, route: str, answer: Response) -> None:
    """What was once let through, or broke with an error that is not ours, or spoilt a log."""
    _check(Server([answer], route), FLOWS["follow a run"], WHO[who])


def test_long_lists_are_cut() -> None:
    """An error that lists what the server has besides is of bounded length all the same."""
    clusters = [{"id": f"c{n}", "name": "w" * 20_000, "status": "200"} for n in range(500)]
    drawn = [Response(404), Response(200, {}, json.dumps({"clusters": clusters}).encode())]
    with pytest.raises(errors.CdmNotFound, match="Clusters of this project: c0") as caught:
        Server(drawn, "/v1.1/").play(FLOWS["wait for a cluster"], WHO["password"])
    sound_error(caught.value)

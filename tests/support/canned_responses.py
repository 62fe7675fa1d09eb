"""Responses that a server might give: documented ones, corrupted ones, and random ones.

``SAMPLES`` holds the documented ones. ``canned_responses`` is a Hypothesis strategy that draws from
all of them, and sometimes a failure of the transport.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, TypeAlias

from hypothesis import strategies as st

from airflow_provider_cdm.client.sansio import Response, TransportError

CannedResponse: TypeAlias = Response | TransportError

_PROJECT = {"id": "p-of-region", "name": "r-1", "domain_id": "d", "enabled": True}
TOKEN_BODY = {
    "token": {
        "expires_at": "2099-01-01T00:00:00.000000Z",
        "methods": ["password"],
        "user": {"name": "u", "id": "1", "domain": {"id": "d", "name": "d"}},
        "project": {**_PROJECT, "domain": {"id": "d", "name": "d"}},
    }
}
PROJECTS_BODY = {"projects": [_PROJECT], "links": {"next": None, "previous": None}}


@dataclass(frozen=True)
class Sample:
    """A documented response."""

    status: int
    body: Any


def _samples(name: str) -> list[Sample]:
    rows = json.loads((Path(__file__).parents[1] / "wire" / f"{name}.json").read_text())
    return [Sample(row.get("status", 200), row.get("body", row.get("raw"))) for row in rows]


_INPUTS = [{"name": "n.table", "value": "t%20u"}, {"name": "n.password", "value": ""}]
_CONFIG = {"configs": [{"name": "n", "inputs": _INPUTS, "id": 1}], "extended-configs": {}}
_JOB = {
    "name": "j",
    "job_type": "NORMAL_JOB",
    "from-link-name": "l",
    "from-config-values": _CONFIG,
    "status": "RUNNING",
    "execute_create_date": 1536905778725,
    "enabled": True,
}
_LINK = {"name": "l", "connector-name": "generic-jdbc-connector", "link-config-values": _CONFIG}
_CLUSTER = {
    "id": "c",
    "name": "mine",
    "status": "300",
    "statusDetail": "Normal",
    "isFrozen": "0",
    "actionProgress": {"CREATING": "29%"},
    "failedReasons": {"CREATE": {"errorCode": "CDM.1", "errorMsg": "no quota"}},
    "instances": [{"id": "i", "status": "200", "flavor": {"id": "f"}}],
}
_VALIDATED = {"name": "j", "validation-result": [{"message": "slow", "status": "WARNING"}, {}]}
#: Documented responses by the names of operations; "errors" are those of all operations.
SAMPLES: dict[str, list[Sample]] = {
    "start_job": _samples("start"),
    "status": _samples("status"),
    "history": _samples("submissions"),
    "stop_job": _samples("stop"),
    "show_job": [Sample(200, {"jobs": [_JOB], "total": 0, "page_no": 1, "page_size": 10})],
    "show": [
        Sample(200, {"jobs": [_JOB]}),
        Sample(200, {"links": [_LINK], "fromTo-unMapping": {}}),
        *_samples("show_job"),
        *_samples("show_link"),
    ],
    "create": [Sample(200, _VALIDATED)],
    "update": [Sample(200, _VALIDATED)],
    "list_jobs": [
        Sample(200, {"total": 2, "jobs": [_JOB, {**_JOB, "name": "k", "status": "NEW"}]})
    ],
    "list_clusters": [Sample(200, {"clusters": [_CLUSTER]})],
    "show_cluster": [Sample(200, _CLUSTER), Sample(200, {**_CLUSTER, "status": 200})],
    "start_cluster": [Sample(200, {"jobId": ["ff8080815e59d92d015e5b27ccb0004d"]})],
    "stop_cluster": [Sample(200, {"jobId": "ff8080815e59d92d015e5b27ccb0004d"})],
    "errors": _samples("errors") + _samples("gateway"),
    "iam": [Sample(201, TOKEN_BODY), Sample(200, PROJECTS_BODY)],
}
_ALL_SAMPLES = [sample for samples in SAMPLES.values() for sample in samples]


# Corrupted bodies


@dataclass(frozen=True)
class RawJson:
    """Text that is written to JSON unchanged, in place of a value."""

    text: str


@dataclass(frozen=True)
class DuplicateKey:
    """Two values of a key that an object contains twice."""

    first: Any
    second: Any


def write_json(value: Any) -> str:
    """Return a value as JSON, or as almost JSON."""
    if isinstance(value, RawJson):
        return value.text
    if isinstance(value, DuplicateKey):
        return write_json(value.second)
    if isinstance(value, list):
        return f"[{', '.join(map(write_json, value))}]"
    if isinstance(value, dict):
        pairs = []
        for name, content in value.items():
            both = (content.first, content) if isinstance(content, DuplicateKey) else (content,)
            pairs += [f"{json.dumps(name)}: {write_json(item)}" for item in both]
        return f"{{{', '.join(pairs)}}}"
    return json.dumps(value)


_JUNK_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 5, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 10**4000),
    *(0.5, -0.0, 1e17, 1e308, RawJson("1e999"), float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "\x00", "a\x00b", "\ud800", "x\udfffy", "\u202e", "a\nb\r\nc", "\x1b[31m"),
    *("NaN", "-Infinity", "1e400", "0x10", "1_000", "٣", "9" * 5000, "w" * 20_000, "\ud83d" * 3000),
    *([], {}, [[]], [{}], [None], {"": None}, {"error": {"error": {}}}, {"status": "ERROR"}),
    *("RUNNING", "SUCCEEDED", "FAILED", "UNKNOWN", "NEVER_EXECUTED", "2099-01-01T00:00:00Z"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2099-01-01", "2099-W01-1"),
    *(
        *(RawJson("[" * levels + "]" * levels) for levels in (200, 2_000)),
        RawJson("[" * 100_000),
        RawJson("undefined"),
        RawJson("01"),
        RawJson("1" * 9000),
    ),
]
junk_values = st.sampled_from(_JUNK_VALUES).map(deepcopy) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=6), inside, max_size=3)
    ),
    max_leaves=8,
)
Position: TypeAlias = tuple[Any, Any]


def _positions(value: Any) -> Iterator[Position]:
    """Yield all positions inside a value, as container and key."""
    if isinstance(value, list | dict):
        for key in range(len(value)) if isinstance(value, list) else list(value):
            yield value, key
            yield from _positions(value[key])


def _corrupt(position: Position, how: str, other: Any) -> None:
    """Corrupt the value at a position in one way.

    :param other: value that replaces it, if the way needs one.
    """
    container, key = position
    value = container[key]
    if how == "drop":
        del container[key]
    elif how == "twice" and isinstance(container, dict):
        container[key] = DuplicateKey(other, value)
    elif how == "rename" and isinstance(container, dict):
        container[str(key).upper()] = container.pop(key)
    elif how == "repeat" and isinstance(value, list):
        container[key] = value * 50
    elif how == "text":
        container[key] = write_json(value)
    elif how == "wrap":
        container[key] = [value]
    else:
        container[key] = other


_CORRUPTIONS = ["replace"] * 5 + ["drop", "drop", "twice", "rename", "repeat", "text", "wrap"]


@st.composite
def _bodies(draw: st.DrawFn, sample: Any) -> bytes:
    """Draw the body of a sample with up to three corruptions."""
    box = [deepcopy(sample)]
    for _ in range(draw(st.integers(0, 3))):
        positions = list(_positions(box))
        if not positions:
            break
        position = positions[draw(st.integers(0, len(positions) - 1))]
        _corrupt(position, draw(st.sampled_from(_CORRUPTIONS)), draw(junk_values))
    text = box[0] if len(box) == 1 and isinstance(box[0], str) else ", ".join(map(write_json, box))
    body = text.encode(draw(_ENCODINGS), "surrogatepass")
    cut = draw(_CUTS)
    return body if cut is None else body[: cut % (len(body) + 1)]


_ENCODINGS = st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-32-be", "utf-7"])
_CUTS = st.none() | st.none() | st.none() | st.integers(0, 10_000)


# Statuses and headers

_STATUSES = [
    200,
    200,
    200,
    201,
    202,
    204,
    206,
    299,
    300,
    302,
    304,
    307,
    400,
    401,
    402,
    403,
    404,
    405,
]
_STATUSES += [407, 408, 409, 410, 413, 418, 425, 429, 429, 451, 499, 500, 501, 502, 503, 504, 505]
_NUMBERS = ["0", "1", "-1", "120", "1e9", "9" * 30, "1.5", "nan", "inf", "٣", "", " ", "soon"]
_DATES = [formatdate(at, usegmt=True) for at in (0, 1_735_787_045, 253_402_300_799)] + [
    "Wed, 01 Jan 2025 03:04:05",
    "Wed, 01 Jan 2025 03:04:05 +9999",
    "Wed, 01 Jan 2025 03:04:05 -99999999999999",
    "Wed, 31 Feb 2025 25:61:61 GMT",
    "Mon, 01 Jan 0001 00:00:00 +1400",
    "Fri, 31 Dec 9999 23:59:59 -1200",
    "Wed, 01 Jan 99999 03:04:05 GMT",
    "0 0 0 0 0",
    ",",
]
#: What http.client can return: Latin-1, including folded lines.
_LATIN = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=30)
_VALUES = _LATIN | st.sampled_from(["", "x" * 60_000, "a\r\n b", "a\r\n\tb", "\x00", "(", '"'])
_TIMES = st.sampled_from(_NUMBERS + _DATES) | _VALUES
_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "date": _TIMES,
        "retry-after": _TIMES,
        "x-request-id": _VALUES,
        "x-iam-trace-id": _VALUES,
        "x-subject-token": st.just("MII") | st.just("MII") | _VALUES,
        "location": st.just("https://login.example/?ticket=1") | _VALUES,
        "content-type": _VALUES,
    },
)


@st.composite
def canned_responses(draw: st.DrawFn, operation: str) -> CannedResponse:
    """Draw a response to an operation, or a failure of the transport."""
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return TransportError("reset", sent=draw(st.booleans()))
    headers = draw(_HEADERS)
    if kind == 1:
        return Response(draw(st.integers(200, 999)), headers, draw(st.binary(max_size=300)))
    samples = SAMPLES.get(operation) if kind < 14 else None
    sample = draw(st.sampled_from(samples or _ALL_SAMPLES))
    status = sample.status if kind % 3 else draw(st.sampled_from(_STATUSES))
    return Response(status, headers, draw(_bodies(sample.body)))

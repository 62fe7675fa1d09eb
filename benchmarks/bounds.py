"""Bounds: how long exchanges with hostile servers take, and how much memory they need."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zlib
from contextlib import closing
from typing import Any

from benchmarks.common import Result, log, table
from tests.support.byte_server import ByteServer, Respond, SilentServer, first, forever, once

TITLE = "Bounds of time and memory"
#: Seconds that each exchange may take.
LIMIT = 5.0
PAUSE = 0.05
_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_GZIP = _OK + b"Content-Encoding: gzip\r\n\r\n"
_X = b"x" * 65_536


def _bomb(gigabytes: int) -> bytes:
    """Return zeros, compressed to a thousandth."""
    packer, piece = zlib.compressobj(9, wbits=31), b"\0" * 10**6
    return b"".join(packer.compress(piece) for _ in range(1_000 * gigabytes)) + packer.flush()


#: What servers answer to a request.
ANSWERS: dict[str, Respond] = {
    "a body without an end": first(_OK + b"\r\n", forever(_X)),
    "a body that drips": first(_OK + b"Content-Length: 99999\r\n\r\n", forever(b"x", PAUSE)),
    "headers without an end": first(_OK, forever(b"a: b\r\n" * 100)),
    "one header without an end": first(_OK + b"a: ", forever(_X)),
    "headers that drip": first(_OK, forever(b"a: b\r\n", PAUSE)),
    "interim answers without an end": forever(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
    "a chunk of -1 bytes": first(_CHUNKED + b"-1\r\n", forever(_X)),
    "a chunk of 2^63 bytes": first(_CHUNKED + b"7fffffffffffffff\r\n", forever(_X)),
    "chunks that drip": first(_CHUNKED, forever(b"1\r\nx\r\n", PAUSE)),
    "trailers without an end": first(_CHUNKED + b"0\r\n", forever(b"a: b\r\n" * 100)),
    "a gzip bomb of 1 GB": once(_GZIP + _bomb(1)),
    "empty parts of gzip without an end": first(_GZIP, forever(gzip.compress(b"") * 1000)),
    "JSON of 8 MB, all empty lists": once(_OK + b"\r\n[" + b"[]," * 2_790_000 + b"[]]"),
    "no answer": forever(b"", PAUSE),
}
#: What servers send before they have read anything, as a proxy or in a handshake.
BEGINNINGS: dict[str, Respond] = {
    "that drips": forever(b"H", PAUSE),
    "without an end": first(_OK + b"a: ", forever(_X)),
    "that never comes": forever(b"", PAUSE),
}
_HANDSHAKE = first(b"\x16\x03\x03\x40\x00", forever(b"\0", PAUSE))

_BEGIN = """
import json, pathlib, re, socket, sys, threading, time
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.sansio import Request, TransportError, send_request
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import KeyCredentials, Settings
from airflow_provider_cdm.client.text import read_json
from airflow_provider_cdm.client.api import parsing
from airflow_provider_cdm.client.http import transport
from airflow_provider_cdm.client.whole_database import table_names

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s*(\\d+)", status)[1]) / 1024

url, proxy, limit = json.loads(sys.argv[1])
session = CdmSession(
    Settings(url, url, KeyCredentials("ak", "sk"), project_id="p", proxy=proxy), time_limit=limit
)

def exchange():
    return read_json(session.run(send_request(Request("GET", url + "/x"))).body)
"""
_END = """
memory, began, outcome = peak(), time.perf_counter(), "read"
try:
    result = work()
    outcome = result if isinstance(result, str) else outcome
except (TransportError, errors.CdmError) as error:
    outcome = type(error).__name__
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "mb": max(0.0, peak() - memory), "outcome": outcome}))
"""
#: Work without a server, as code of the child; ``work`` is measured.
WORK = {
    "a host name whose look-up never ends": (
        "socket.getaddrinfo = lambda *_, **__: threading.Event().wait()\nwork = exchange"
    ),
    "a definition with aliases of YAML that stand for 9^9 texts": """
lines = ["a0: &a0 [" + ", ".join(["x"] * 9) + "]"]
lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 9)]
work = lambda: parsing.job("\\n".join(lines))
""",
    "a definition with merges of YAML for 8^59 keys": """
lines = ["a0: &a0 {k: v}"]
lines += [f"a{n}: &a{n} {{<<: [" + ", ".join([f"*a{n - 1}"] * 8) + "]}" for n in range(1, 60)]
work = lambda: parsing.job("\\n".join(lines))
""",
    "the largest result: a run with 200 tables, all texts of 1 MB": """
from dataclasses import replace
from airflow_provider_cdm.client.api.job_list import ListedJob
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.client.whole_database.tables import Table, TableReport
text = "x" * 10**6
wire = dict.fromkeys(("status", "error-summary", "error-details", "creation-user"), text)
run = Submission.from_wire({**wire, "counters": {text + str(n): n for n in range(20)}}, "c", "j")

def work():
    listed = ListedJob.from_wire({"name": "j_" + text, "status": text})
    tables = [Table.of(listed, "j", text).with_status(run)] * 200
    report = replace(TableReport.of(tables, None), missing=[text] * 200).to_dict()
    return f"{len(json.dumps(replace(run, tables=report).to_dict())) / 1000:.0f} kB of JSON"
""",
    "a definition of 100,000 brackets": 'work = lambda: parsing.job("[" * 100_000)',
    "a pattern of tables with 40 asterisks": (
        'work = lambda: table_names.pattern_of("*a" * 40 + "b").fullmatch("a" * 5_000 + "!")'
    ),
}


def measure(*, quick: bool) -> Result:
    """Let a new process meet each hostile server, and measure its time and memory."""
    rows: list[dict[str, Any]] = []
    limit = 1.0 if quick else LIMIT

    def add(what: str, code: str, url: str = "http://cdm.test", proxy: str | None = None) -> None:
        log(f"bounds: {what}")
        rows.append({"what": what, "limit": limit, **_in_child(code, url, proxy, limit)})

    for what, respond in ANSWERS.items():
        with closing(ByteServer()) as byte_server:
            byte_server.respond = respond
            add(what, "work = exchange", byte_server.url)
    for what, respond in BEGINNINGS.items():
        with closing(SilentServer(respond)) as server:
            proxy = f"http://{server.address}"
            add(f"an answer to CONNECT {what}", "work = exchange", "https://cdm.test", proxy)
    with closing(SilentServer(_HANDSHAKE)) as server:
        add("a TLS handshake that drips", "work = exchange", f"https://{server.address}")
    for what, code in WORK.items():
        add(what, code)
    return Result("bounds", rows)


def _in_child(code: str, url: str, proxy: str | None, limit: float) -> dict[str, Any]:
    command = [sys.executable, "-c", f"{_BEGIN}{code}{_END}", json.dumps([url, proxy, limit])]
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    sample: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return {**sample, "seconds": round(sample["seconds"], 2), "mb": round(sample["mb"], 1)}


def tables(result: Result) -> str:
    """Return the table."""
    heads = ("what", "limit, s", "ended after, s", "memory, MB", "outcome")
    return table(
        heads,
        [
            (row["what"], row["limit"], row["seconds"], row["mb"], row["outcome"])
            for row in result.rows
        ],
    )


def goals(result: Result) -> list[tuple[str, str]]:
    """Return what must be true of the figures, and whether it is."""
    late = max(row["seconds"] - row["limit"] for row in result.rows)
    most = max(row["mb"] for row in result.rows)
    reached = "reached" if late <= 1 else "**missed**"
    return [
        (
            "Every exchange with a hostile server ends within its limit and a second",
            f"{reached}: {max(late, 0.0):.2f} s after it at the latest, {most:.0f} MB at most",
        )
    ]

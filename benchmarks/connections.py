"""What each process of a task pays for: a new TLS connection, and the masking of its token."""

from __future__ import annotations

import gc
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certifi
import requests

from airflow_provider_cdm._compat import mask_secret
from airflow_provider_cdm.client.auth.masking import texts_to_mask
from airflow_provider_cdm.client.sansio import Request, send_request
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import KeyCredentials, Settings
from benchmarks.common import (
    Result,
    in_a_fork,
    log,
    median,
    percentile,
    quartile_range,
    simulator,
    table,
    verdict,
)

TITLE = "New connections, and masking"
#: Characters of a token of IAM.
_TOKEN_LENGTH = 8_000
_FIRST, _LATER, _BARE = "first of a process", "each later one", "bare requests.get"
_PIECES, _WHOLE = "two pieces of its signature", "the whole token"


def measure(*, quick: bool) -> Result:
    """Measure connections to a simulator with TLS, and then masking."""
    repeats = 5 if quick else 100
    with simulator({"tls": True}) as sim, tempfile.TemporaryDirectory() as folder:
        # The bundle of requests is what takes time to load.
        bundle = Path(folder, "bundle.pem")
        certificate = Path(sim.connection["extra"]["verify"])
        bundle.write_bytes(Path(certifi.where()).read_bytes() + certificate.read_bytes())
        settings = Settings(
            sim.url, sim.url, KeyCredentials("ak", "sk"), project_id="p", verify=str(bundle)
        )
        rows = _connections(settings, repeats)
    token = secrets.token_urlsafe(_TOKEN_LENGTH)[:_TOKEN_LENGTH]
    ways: dict[str, Callable[[], None]] = {
        _PIECES: lambda: mask_secret(texts_to_mask(token)),
        _WHOLE: lambda: mask_secret(token),
    }

    def mask_another() -> None:
        # A forked process copies the memory that it writes to; that is not what is measured.
        mask_secret(texts_to_mask(secrets.token_urlsafe(_TOKEN_LENGTH))[:1])

    mask_another()
    # Airflow's masker keeps all that it has been given, so each sample is a process of its own.
    rows += [
        _row("masking a token", way, [_forked(work, mask_another) for _ in range(repeats)])
        for way, work in ways.items()
    ]
    return Result("connections", rows)


def _connections(settings: Settings, repeats: int) -> list[dict[str, Any]]:
    url = f"{settings.cdm_endpoint}/none"

    def connect() -> None:
        with CdmSession(settings) as session:
            session.run(send_request(Request("GET", url)))

    def bare() -> None:
        requests.get(url, verify=settings.verify, timeout=10)

    connect()  # imports what it needs; a forked process loads the bundle itself
    gc.collect()
    gc.freeze()
    samples = {_FIRST: [_forked(connect) for _ in range(repeats)]}
    for way, work in {_LATER: connect, _BARE: bare}.items():
        samples[way] = [_cpu_of(work) for _ in range(repeats)]
    return [_row("a new TLS connection", way, found) for way, found in samples.items()]


def _forked(work: Callable[[], None], prepare: Callable[[], None] = lambda: None) -> float:
    took = in_a_fork(work, prepare)
    if took is None:
        raise RuntimeError("the work failed in the forked process")
    return took[1]


def _cpu_of(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _row(what: str, way: str, seconds: list[float]) -> dict[str, Any]:
    cpus = [1000 * each for each in seconds]
    spread = [percentile(cpus, 0.25), percentile(cpus, 0.75)]
    row = {"what": what, "way": way, "cpu_ms": median(cpus), "cpu_spread": spread}
    log(f"connections: {row}")
    return row


def goals(result: Result) -> list[tuple[str, str]]:
    """Return the goals, and whether they were reached."""
    cpu = {row["way"]: row["cpu_ms"] for row in result.rows}
    return [
        (
            "CPU of a new TLS connection after the first of a process: at most 5 ms",
            f"{verdict(cpu[_LATER] <= 5)}, {cpu[_LATER]:g} ms; {_BARE}: {cpu[_BARE]:g} ms",
        ),
        (
            "CPU of masking a token of 8,000 characters: at most 1 ms",
            f"{verdict(cpu[_PIECES] <= 1)}, {cpu[_PIECES]:g} ms; {_WHOLE}: {cpu[_WHOLE]:g} ms",
        ),
    ]


def tables(result: Result) -> str:
    """Return the table."""
    heads = ("what", "how", "CPU, ms", "quartiles")
    lines = [
        (row["what"], row["way"], row["cpu_ms"], quartile_range(row["cpu_spread"]))
        for row in result.rows
    ]
    return table(heads, lines)

"""Texts that a server or a user of CDM chooses: what logs, errors and XComs make of them."""

from __future__ import annotations

import base64
import html
import json
import quopri
import re
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.cluster import Cluster
from airflow_provider_cdm.client.api.job_list import ListedJob
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.jobs.failure_report import ensure_succeeded
from airflow_provider_cdm.client.sansio import Response
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.client.text import one_line, printable, redact
from airflow_provider_cdm.client.whole_database.tables import Table, TableReport
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.task_harness import TaskRunner

FORGED = "[2026-05-01T00:00:00.000+0000] {taskinstance.py:1} INFO - Marking task as SUCCESS."
#: Texts that would look like something else in a log, and what of them must not be shown.
TEXTS = {
    "a forged line": (f"no\n{FORGED}", f"\n{FORGED}"),
    "a forged line after a carriage return": (f"no\r{FORGED}", f"\r{FORGED}"),
    "a forged line after a line separator": (f"no\u2028{FORGED}", "\u2028"),
    "a forged line after NEL": (f"no\u0085{FORGED}", "\u0085"),
    "a group": ("::group::all is well", "::group::"),
    "the end of a group": ("no\n::endgroup::", "::endgroup::"),
    "a group, spelled differently": ("::GROUP::x", "::GROUP::"),
    "a group of Airflow 2": ("##[group]x", "##[group]"),
    "colors": ("\x1b[2J\x1b[32mdone", "\x1b"),
    "colors of one character": ("\u009b32mdone", "\u009b"),
    "reversed text": ("\u202egnol oot", "\u202e"),
    "isolated text": ("\u2066x\u2069", "\u2066"),
    "half a character": ("\ud800", "\ud800"),
    "NUL and DEL": ("a\x00b\x7f", "\x7f"),
}


@pytest.mark.parametrize("what", TEXTS)
def test_the_report_of_a_failed_run(what: str) -> None:
    """A summary or detail of a failed run cannot look like another line of the log."""
    text, hidden = TEXTS[what]
    wire = {"status": "FAILED", "error-summary": text, "error-details": f"trace\n{text}\nend"}
    run = Submission.from_wire(wire, "c", "orders")
    with pytest.raises(errors.CdmSubmissionFailed) as caught:
        ensure_succeeded(run)
    assert hidden not in str(caught.value)
    assert FORGED not in str(caught.value).splitlines()
    *details, last = str(caught.value).partition("Details:\n")[2].splitlines()
    assert all(line.startswith("  | ") for line in details)
    assert last == "The run: FAILED, rows unknown"


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
# The simulator cannot send half a character either.
@pytest.mark.parametrize("what", [what for what in TEXTS if what != "half a character"])
def test_the_log_of_a_task(
    what: str,
    deferrable: bool,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    log: pytest.LogCaptureFixture,
) -> None:
    """A failed call and a failed run with such a text leave no such text in the task's log."""
    text, hidden = TEXTS[what]
    body = json.dumps({"errCode": "Cdm.0000", "externalMessage": text})
    sim.add_job("orders", outcome="FAILED", error_summary=text, error_details=text)
    sim.fail("status", "status", status=500, body=body)
    with pytest.raises(errors.CdmSubmissionFailed) as caught:
        task_runner.run(
            lambda: CdmStartJobOperator(
                task_id="t", job_name="orders", wait_for_completion=True, deferrable=deferrable
            )
        )
    shown = log.text + str(caught.value)
    assert "Cdm.0000" in shown
    assert hidden not in shown
    assert FORGED not in shown.splitlines()


@pytest.mark.parametrize("what", TEXTS)
def test_the_state_of_a_cluster(what: str) -> None:
    """Name, status and reasons of a cluster are one line without anything to interpret."""
    text, hidden = TEXTS[what]
    cluster = Cluster.from_wire(
        {"id": "c", "name": text, "status": "300", "failedReasons": {"x": {"errorMsg": text}}}
    )
    shown = f"{cluster}: {cluster.state} {cluster.reasons}"
    assert hidden not in shown
    assert len(shown.splitlines()) == 1


@given(st.text(max_size=200))
@settings(derandomize=True, max_examples=300)
def test_one_line(text: str) -> None:
    """Any text becomes one line that holds nothing which a terminal or log viewer interprets."""
    line = one_line(text, 100)
    assert len(line) <= 100
    assert len(line.splitlines()) <= 1
    # Formatting characters that move nothing, such as joiners in emoji, are kept.
    assert not re.search(
        "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]", line
    )
    assert "::group::" not in line.lower()


def test_common_texts_are_kept() -> None:
    """Names in any language, emoji and line breaks of a report are shown as they are."""
    text = "Größe, 订单, заказы, उदाहरण, 👩‍💻, a::b, #[x]\n\tnext"
    assert printable(text, 1_000) == text


@pytest.mark.parametrize("status", ["SUCCEEDED", "SUCCEEDED" * 99_999], ids=["usual", "long"])
def test_sizes(status: str) -> None:
    """Whatever a server sends as one run, its result and the event of its end stay small."""
    counters = {f"{number}{'x' * 999}": number for number in range(50_000)}
    run = Submission.from_wire(
        {
            "status": status,
            "counters": counters,
            "error-summary": "x" * 10**6,
            "error-details": "x" * 10**6,
            "creation-user": "x" * 10**6,
            "external-id": "x" * 10**6,
        },
        "c",
        "orders",
    )
    assert len(json.dumps(run.to_dict())) < 32_768
    assert len(json.dumps(run.to_payload())) < 65_536


def test_sizes_of_tables() -> None:
    """Whatever a server lists as the tables of a run, their part of the result stays small."""
    counters = {f"{number}{'x' * 999}": number for number in range(1_000)}
    run = {"status": "FAILED", "counters": counters, "error-summary": "x" * 10**6}
    name = f"all_{'x' * 100_000}\u202e\n{FORGED}"
    tables = [
        Table.of(ListedJob.from_wire({"name": name, "status": "x" * 10**5}), "all", "x" * 10**5)
        .with_status(Submission.from_wire(run, "c", name))
        for _ in range(200)
    ]  # fmt: skip
    report = replace(TableReport.of(tables, None), missing=[name] * 200)
    shown = report.to_dict()
    assert (shown["total"], len(shown["list"])) == (200, 50)
    assert len(json.dumps(shown)) < 131_072
    assert not any(len(table["table"].splitlines()) > 1 for table in shown["list"])


SECRET = 's3cr3t/of+the=connection"&é'


def around(encode: Callable[[bytes], str]) -> list[str]:
    """Return the secret in an encoding, alone and after something that shifts it."""
    return [encode(before + SECRET.encode() + b":end") for before in (b"", b"a", b"ab", b"user:")]


def each(write: Callable[[int], str]) -> list[str]:
    """Return the secret with each of its bytes written in some way."""
    return ["".join(map(write, SECRET.encode()))]


def quoted(text: str, layers: int) -> str:
    """Return a text that is percent-encoded several times."""
    return quoted(quote(text, safe=""), layers - 1) if layers else text


SPELLINGS = {
    "base64": around(lambda content: base64.b64encode(content).decode()),
    "base64 for URLs": around(lambda content: base64.urlsafe_b64encode(content).decode()),
    "base64 without its end": around(lambda content: base64.b64encode(content).decode().strip("=")),
    "base64, percent-encoded": around(lambda content: quote(base64.b64encode(content), safe="")),
    "base64 in JSON": around(lambda c: base64.b64encode(c).decode().replace("/", "\\/")),
    "hex": around(bytes.hex),
    "hex in capitals": around(lambda content: content.hex().upper()),
    "percent-encoded": [quoted(SECRET, 1)],
    "percent-encoded in small letters": [quoted(SECRET, 1).lower()],
    "percent-encoded twice": [quoted(SECRET, 2)],
    "percent-encoded three times": [quoted(SECRET, 3)],
    "each byte percent-encoded": each(lambda byte: f"%{byte:02x}"),
    "each byte percent-encoded twice": each(lambda byte: f"%25{byte:02X}"),
    "the percent sign as well": each(lambda byte: f"%25%32%35{byte:02X}"),
    "a form": [quote_plus(SECRET)],
    "HTML": [html.escape(SECRET), html.escape(SECRET, quote=False)],
    "HTML in HTML": [html.escape(html.escape(SECRET))],
    "HTML in decimals": each(lambda byte: f"&#{byte};") + each(lambda byte: f"&#0{byte}"),
    "HTML in hexadecimals": each(lambda byte: f"&#x{byte:x};"),
    "JSON": [json.dumps(SECRET)[1:-1], json.dumps(SECRET).replace("/", "\\/")[1:-1]],
    "JSON in JSON": [json.dumps(json.dumps(SECRET))[3:-3]],
    "JSON in HTML": [html.escape(json.dumps(SECRET)[1:-1])],
    "escapes of JSON": each(lambda byte: f"\\u{byte:04x}"),
    "escapes of JSON in JSON": each(lambda byte: f"\\\\u{byte:04X}"),
    "escapes of Python": each(lambda byte: f"\\x{byte:02x}"),
    "a mail": [quopri.encodestring(SECRET.encode()).decode()],
    "a mail with short lines": ["=\n".join((SECRET[:9], SECRET[9:18], SECRET[18:]))],
    "a shell": ["".join(f"\\{character}" for character in SECRET)],
    "JSON in HTML in an address": each(lambda byte: quote(f"&#92;u{byte:04x}", safe="")),
    "each byte in a mail": each(lambda byte: f"={byte:02X}"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_encoded_secrets(spelling: str) -> None:
    """A secret is recognized in encodings, also as part of a longer text."""
    for text in SPELLINGS[spelling]:
        shown = redact(f"No: {text}!", [SECRET])
        assert "***" in shown
        assert shown.startswith("No: ")
        kept = shown.removeprefix("No: ").removesuffix("!").replace("***", "")
        # What was around the secret, and at its ends a character that depends on it.
        assert len(kept) <= 20, shown


@pytest.mark.parametrize("length", range(6, len(SECRET)))
def test_secrets_that_are_cut_off(length: int) -> None:
    """The beginning of a secret is recognized at the end of a text that was cut off."""
    assert redact(f"No: {SECRET[:length]}", [SECRET]) == "No: ***"


def test_escapes_of_other_texts_are_kept() -> None:
    """What is encoded and no secret is shown as it was sent."""
    text = "a=2F, %41, &amp;, \\n, \\u0041, 100 %25 &#65 é \\"
    assert redact(text, [SECRET]) == text


def test_a_request_id_without_an_end() -> None:
    """A header of 60 kB in place of a request id is cut off before secrets are looked for."""
    header = {"x-request-id": "x" * 60_000}
    response = Response(500, header, b"", secrets=("q" * 20_000,))
    error = error_mapping.from_response(response, "try it", 0.0)
    assert error is not None
    assert error.request_id == "x" * 100


def test_short_secrets_hide_no_other_text() -> None:
    """The encodings of a short secret are not looked for, since they occur by chance."""
    assert redact("a run of job orders in base64: YWI=", ["ab"]) == (
        "a run of job orders in base64: YWI="
    )

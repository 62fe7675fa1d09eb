"""Which ended runs a watcher is about: by starter, and by status."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.client.watching.run_filter import RunFilter


def run(user: str | None = "ann", status: str = "SUCCEEDED", **fields: Any) -> Submission:
    """Return a run that a user started."""
    return Submission("c", "orders", status, 1, creation_user=user, **fields)


FAILED_TABLE = {"total": 2, "succeeded": 1}


@pytest.mark.parametrize(
    ("run_filter", "accepted", "refused"),
    [
        (RunFilter(), [run(), run(None), run(is_execute_auto=True)], []),
        (RunFilter(by_scheduler=True), [run(is_execute_auto=True)], [run()]),
        (RunFilter(by_scheduler=False), [run()], [run(is_execute_auto=True)]),
        (RunFilter(started_by=["ann", "bob"]), [run(), run("bob")], [run("eve"), run(None)]),
        (RunFilter(not_started_by=["bob"]), [run(), run("eve")], [run("bob"), run(None)]),
        (
            RunFilter(started_by=["ann"], not_started_by=["bob"], by_scheduler=False),
            [run()],
            [run("bob"), run("eve"), run(is_execute_auto=True)],
        ),
    ],
)
def test_starter(
    run_filter: RunFilter, accepted: list[Submission], refused: list[Submission]
) -> None:
    """A run counts if it was started by somebody that the filter names, as far as CDM shows it."""
    assert all(map(run_filter.accepts_starter, accepted))
    assert all(map(run_filter.may_accept, accepted))
    assert not any(map(run_filter.accepts_starter, refused))
    assert not any(map(run_filter.may_accept, refused))


@pytest.mark.parametrize(
    ("statuses", "ended", "expected"),
    [
        ([], run(), (True, True)),
        ([], run(status="STOPPED"), (True, True)),
        (["SUCCEEDED"], run(), (True, True)),
        (["SUCCEEDED"], run(status="FAILED"), (False, False)),
        (["SUCCEEDED"], run(tables=FAILED_TABLE), (True, False)),
        (["STOPPED"], run(), (False, False)),
        (["STOPPED"], run(status="STOPPED"), (True, True)),
        # Its tables decide, which are not known yet.
        (["FAILED"], run(), (True, False)),
        (["FAILED"], run(tables=FAILED_TABLE), (False, True)),
        (["FAILED"], run(status="STOPPED"), (False, False)),
        (["FAILED"], run(status="ZOMBIE"), (False, False)),
        (["FAILURE_ON_SUBMIT", "FAILED"], run(status="FAILURE_ON_SUBMIT"), (True, True)),
        (["FAILURE_ON_SUBMIT"], run(status="FAILED"), (False, False)),
    ],
)
def test_status(statuses: list[str], ended: Submission, expected: tuple[bool, bool]) -> None:
    """A run counts by its status; one with a failed table has failed, and may have before that is
    known.
    """
    run_filter = RunFilter(statuses)
    assert (run_filter.may_accept(ended), run_filter.accepts_outcome(ended)) == expected


def test_unknown_starter_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A run that is left out because nobody knows who started it is in the log, and others not."""
    assert RunFilter(by_scheduler=False).accepts_starter(run(None))
    assert not RunFilter(started_by=["ann"]).accepts_starter(run("eve"))
    assert caplog.text == ""
    RunFilter(not_started_by=["ann"]).accepts_starter(run(None))
    assert "end of run 1 of job 'orders' (SUCCEEDED)" in caplog.text

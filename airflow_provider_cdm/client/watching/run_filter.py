"""Which runs that have ended a watcher is about."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which ended runs an event is fired for.

    :param statuses: statuses in CDM's spelling; empty for all.
    :param started_by: names of users who may have started the run; empty for all.
    :param not_started_by: names of users who must not have started it.
    :param by_scheduler: whether CDM's scheduler must have started it, or must not; ``None`` if that
        does not matter.
    """

    statuses: Sequence[str] = ()
    started_by: Sequence[str] = ()
    not_started_by: Sequence[str] = ()
    by_scheduler: bool | None = None

    def accepts_starter(self, run: Submission) -> bool:
        """Return whether the run was started by somebody that this is about."""
        if self.by_scheduler is not None and run.is_execute_auto != self.by_scheduler:
            return False
        if (self.started_by or self.not_started_by) and run.creation_user is None:
            log.warning(
                "No event is fired for the end of %s (%s): CDM does not show who started it.",
                *(RunRef.of(run), run.status),
            )
            return False
        if self.started_by and run.creation_user not in self.started_by:
            return False
        return run.creation_user not in self.not_started_by

    def may_accept(self, run: Submission) -> bool:
        """Return whether the run is accepted, or may be once its tables are known."""
        if not self.accepts_starter(run):
            return False
        if not self.statuses or run.status in self.statuses:
            return True
        return run.verdict is Verdict.SUCCESS and "FAILED" in self.statuses

    def accepts_outcome(self, run: Submission) -> bool:
        """Return whether the run ended in one of the statuses; with a failed table, it failed."""
        with_failed_table = run.failed and run.status == "SUCCEEDED"
        return not self.statuses or ("FAILED" if with_failed_table else run.status) in self.statuses

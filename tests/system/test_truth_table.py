"""Whatever is cleared or retried, in any state: exactly the runs that the table says."""

from __future__ import annotations

import pytest

from tests.support.airflow_settings import SERIES
from tests.system.scenario_runner import ScenarioRun
from tests.system.truth_table import ROWS

SHOWN = ".".join(map(str, SERIES))


@pytest.mark.parametrize("name", [row.name for row in ROWS if row.on(SHOWN)])
def test_row(scenario_runs: dict[str, ScenarioRun], name: str) -> None:
    """Runs at the simulator, rows in the target, the end of the task and of its sensor are so."""
    run = scenario_runs[name]
    if run.problems:
        pytest.fail(run.report, pytrace=False)

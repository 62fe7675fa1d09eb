"""Whatever happens to the processes of Airflow: exactly the expected CDM runs and rows."""

from __future__ import annotations

import pytest

from tests.system.scenario_runner import ScenarioRun
from tests.system.scenarios import SCENARIOS


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_fault(scenario_runs: dict[str, ScenarioRun], name: str) -> None:
    """Runs at the simulator, rows in the target and the end of the task are those expected."""
    run = scenario_runs[name]
    if run.problems:
        pytest.fail(run.report, pytrace=False)

"""Whatever happens to the processes: as many runs and rows as there should be."""

from __future__ import annotations

import pytest

from tests.system.scenario_runner import Play
from tests.system.scenarios import SCENARIOS


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_fault(plays: dict[str, Play], name: str) -> None:
    """Runs at the simulator, rows in the target and the task's end are those expected."""
    play = plays[name]
    if play.problems:
        pytest.fail(play.report, pytrace=False)

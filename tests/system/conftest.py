"""Plays the scenarios, all at once, and shows a table of them in the end."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator
from tests.system.scenario_runner import Play, Stage
from tests.system.scenarios import SCENARIOS
from tests.support.migration_jobs import Shop
from tests.support.airflow_stack import Stack, wait_until

if not os.environ.get("CDM_SYSTEM"):
    # It takes minutes, and belongs to no suite that is run all the time.
    collect_ignore_glob = ["*"]

#: Seconds between the beginnings of two scenarios.
PACE = 0.8
PLAYS = pytest.StashKey[list[Play]]()


@pytest.fixture(scope="session")
def plays(request: pytest.FixtureRequest) -> Iterator[dict[str, Play]]:
    """Play all scenarios that are asked for, to their end."""
    items: list[Any] = request.session.items
    wanted = {item.callspec.params["name"] for item in items if hasattr(item, "callspec")}
    folder = Path(tempfile.mkdtemp(prefix="cdm-faults-"))
    try:
        played = _play(request.config, folder, wanted)
        request.config.stash[PLAYS] = played
        yield {play.name: play for play in played}
    finally:
        if os.environ.get("CDM_SYSTEM_KEEP"):
            _tell(request.config, f"Everything is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _play(config: pytest.Config, folder: Path, wanted: set[str]) -> list[Play]:
    began = time.monotonic()
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in wanted]
    dags = folder / "dags"
    dags.mkdir()
    for scenario in scenarios:
        # A file for each, so that Airflow has not to look at one of them in the order of faults.
        shutil.copy(Path(__file__).with_name("dag_file.py"), dags / f"{scenario.name}.py")
        (folder / scenario.name).mkdir()
        (folder / scenario.name / "days.json").write_text("[]")
        (folder / scenario.name / "plan.json").write_text(json.dumps(scenario.plan()))
    with CdmSimulator() as sim:
        shop = Shop(sim, folder)
        shop.open()
        for scenario in scenarios:
            shop.add_job(scenario.name, scenario.seconds, scenario.outcomes)
        connection = sim.connection
        # A start may be on its way for as long as these say; then its settling begins.
        connection["extra"] |= {"connect_timeout": 5, "read_timeout": 15}
        environment = {
            "AIRFLOW_CONN_CDM_DEFAULT": json.dumps(connection),
            "CDM_SYSTEM_FOLDER": str(folder),
        }
        stack = Stack(folder / "airflow", dags, environment)
        stack.home.mkdir()
        stage = Stage(stack, shop, folder, scenarios)
        played = [Play(scenario, stage) for scenario in scenarios]
        try:
            stack.start()
            stack.wait_for_dags(len(scenarios))
            _tell(config, f"Airflow {version('apache-airflow')} is up", began)
            _perform(config, played, began)
            for play in played:
                play.verdict_of()
        finally:
            stack.stop()
            for play in played:
                play.end_orphans()
        _tell(config, "All is judged", began)
    return played


def _perform(config: pytest.Config, played: list[Play], began: float) -> None:
    threads = []
    for play in played:
        threads.append(threading.Thread(target=play.perform, daemon=True))
        threads[-1].start()
        time.sleep(PACE)
    told: set[str] = set()

    def over() -> bool:
        for play, thread in zip(played, threads, strict=True):
            if not thread.is_alive() and play.name not in told:
                told.add(play.name)
                _tell(config, f"{play.name}: {'; '.join(play.problems) or 'over'}", began)
        return len(told) == len(played)

    wait_until(over, 900, "all scenarios are over")
    # What happens twice may happen late: nothing may be left that still runs.
    busy = ("PENDING", "BOOTING", "RUNNING")
    wait_until(lambda: not any(s in busy for p in played for s in p.runs), 120, "all runs are over")
    time.sleep(3)


def _tell(config: pytest.Config, text: str, began: float | None = None) -> None:
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    at = "" if began is None else f"{time.monotonic() - began:6.1f} s  "
    with capture.global_and_fixture_disabled():
        reporter.ensure_newline()
        reporter.write_line(f"{at}{text}", flush=True)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the table."""
    played = config.stash.get(PLAYS, [])
    if not played:
        return
    form = "{:<32} {:<7} {:<25} {:<25} {:<5} {:<7} {:>5}"
    terminalreporter.section("scenarios")
    heads = ("scenario", "Airflow", "runs expected", "runs", "rows", "verdict", "s")
    terminalreporter.write_line(form.format(*heads))
    for play in played:
        cells = (
            play.name,
            version("apache-airflow"),
            _short(play.scenario.runs),
            _short(play.found),
            "ok" if play.rows_ok else "WRONG",
            "FAILED" if play.problems else "ok",
            f"{play.seconds:.0f}",
        )
        terminalreporter.write_line(form.format(*cells))


def _short(statuses: tuple[str, ...]) -> str:
    counts = {status: statuses.count(status) for status in statuses}
    return ", ".join(f"{count} {status.lower()}" for status, count in counts.items()) or "none"

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

import airflow_provider_cdm
from airflow_provider_cdm.simulator import CdmSimulator

ROOT = re.sub(r"/airflow_provider_cdm/__init__\.py$", "", str(airflow_provider_cdm.__file__))
COMMAND = [sys.executable, "-W", "error", "-m", "airflow_provider_cdm.simulator"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_line(number: signal.Signals) -> None:
    """The process tells its URL and a connection, serves, and ends well when asked to."""
    with subprocess.Popen(
        [*COMMAND, "--port", "0", "--quotas", "documented"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        url = first.split()[-1]
        found = re.fullmatch(r"export AIRFLOW_CONN_CDM_DEFAULT='(.*)'\n", second)
        assert found is not None
        connection = json.loads(found[1])
        assert (connection["conn_type"], connection["host"]) == ("huaweicloud_cdm", url)
        assert requests.get(f"{url}/_sim/state", timeout=5).status_code == 200
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_wrong_configuration(tmp_path: Path) -> None:
    """A wrong file ends the process with status 2 and all problems, without a traceback."""
    path = tmp_path / "cdm.yaml"
    path.write_text("domian: x\nauth: maybe\n")
    done = run("--config", str(path))
    assert done.returncode == 2
    assert "domian: unknown key" in done.stderr
    assert "auth: on or off wanted" in done.stderr
    assert "Traceback" not in done.stderr


def test_host_that_others_reach() -> None:
    """A host other machines can reach ends the process with status 2 and the reason."""
    done = run("--host", "0.0.0.0")
    assert (done.returncode, "--allow-any-host" in done.stderr) == (2, True)


def test_taken_port() -> None:
    """A port that is taken ends the process with status 2."""
    with CdmSimulator() as sim:
        done = run("--port", sim.url.rsplit(":")[-1])
    assert (done.returncode, "Address already in use" in done.stderr) == (2, True)


@pytest.mark.parametrize("package", ["uvicorn", "starlette"])
def test_missing_extra(package: str) -> None:
    """Without what the extra installs, the error says what to install."""
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from airflow_provider_cdm.simulator.__main__ import main\n"
        "sys.exit(main(['--port', '0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert f"needs {package}: pip install 'airflow-provider-cdm[simulator]'" in done.stderr


def test_stands_alone() -> None:
    """The simulator needs neither Airflow nor the package's client, and loads late."""
    code = (
        "import sys, airflow_provider_cdm.simulator as s\n"
        "assert not {'uvicorn', 'starlette', 'sqlalchemy', 'yaml'} & sys.modules.keys()\n"
        "with s.CdmSimulator(): pass\n"
        "found = [m for m in sys.modules if m == 'airflow' or m.startswith('airflow.')\n"
        "         or m.startswith('airflow_provider_cdm.client')]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_quick_to_start_and_stop() -> None:
    """Starting and stopping together take well under a second."""
    began = time.monotonic()
    for _ in range(5):
        with CdmSimulator() as sim:
            requests.get(sim.url, timeout=5)
    assert time.monotonic() - began < 2.5


def test_idle_connections_do_not_hold_it_up() -> None:
    """Connections kept alive by clients are closed at the end."""
    with requests.Session() as session:
        began = time.monotonic()
        with CdmSimulator() as sim:
            session.get(sim.url, timeout=5)
        assert time.monotonic() - began < 1
        with pytest.raises(requests.ConnectionError):
            session.get(sim.url, timeout=5)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_loopback_by_other_names(host: str) -> None:
    """Every loopback address will do."""
    if host == "::1" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with CdmSimulator(host=host) as sim:
        assert requests.get(sim.url, timeout=5).status_code == 200


def test_connection_settings() -> None:
    """The settings for Airflow name user, account, region, project, cluster and both endpoints."""
    with CdmSimulator() as sim:
        extra = sim.connection_extra
        assert extra["iam_endpoint"] == sim.connection["host"] == sim.url
        assert (extra["cluster_id"], extra["domain_name"]) == (sim.cluster_id, "acme")
        assert json.loads(sim.connection_json) == sim.connection
        start = f"huaweicloud-cdm://airflow:airflow-secret@http%3A%2F%2F127.0.0.1%3A{sim.url[17:]}"
        assert sim.connection_uri.startswith(start)


pytest_plugins = ["pytester"]


def test_fixtures_for_users(pytester: pytest.Pytester) -> None:
    """The fixtures give each test a simulator of its own, configured, and a connection to it."""
    pytester.makeconftest('pytest_plugins = ["airflow_provider_cdm.simulator.pytest_plugin"]')
    pytester.makepyfile(
        """
        import json, os, pytest

        @pytest.fixture
        def cdm_simulator_config():
            return {"clusters": [{"name": "mine", "jobs": ["load"]}]}

        @pytest.mark.parametrize("turn", [1, 2])
        def test_it(turn, cdm_simulator, cdm_connection):
            found = json.loads(os.environ["AIRFLOW_CONN_" + cdm_connection.upper()])
            assert found["host"] == cdm_simulator.url
            assert cdm_simulator.start("load").submission_id == 1

        def test_afterwards():
            assert "AIRFLOW_CONN_CDM_DEFAULT" not in os.environ
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)

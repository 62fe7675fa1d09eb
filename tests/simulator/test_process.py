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


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_line(number: signal.Signals) -> None:
    """The process prints its URL and a connection, serves, and exits with 0 after a signal."""
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
        export = re.fullmatch(r"export AIRFLOW_CONN_CDM_DEFAULT='(.*)'\n", second)
        assert export is not None
        connection = json.loads(export[1])
        assert (connection["conn_type"], connection["host"]) == ("huaweicloud_cdm", url)
        assert process.stdout.readline() == (
            f"Password of user airflow, for this start: {connection['password']}\n"
        )
        assert requests.get(f"{url}/_sim/state", timeout=5).status_code == 200
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_invalid_configuration(tmp_path: Path) -> None:
    """An invalid file ends the process with status 2 and all problems, without a traceback."""
    path = tmp_path / "cdm.yaml"
    path.write_text("domian: x\nauth: maybe\n")
    process = run("--config", str(path))
    assert process.returncode == 2
    assert "domian: unknown key" in process.stderr
    assert "auth: expected on or off" in process.stderr
    assert "Traceback" not in process.stderr


def test_host_that_is_not_loopback() -> None:
    """A host that other machines can reach ends the process with status 2 and the reason."""
    process = run("--host", "0.0.0.0")
    assert (process.returncode, "--allow-any-host" in process.stderr) == (2, True)


def test_port_in_use() -> None:
    """A port that is in use ends the process with status 2."""
    with CdmSimulator() as sim:
        process = run("--port", sim.url.rsplit(":")[-1])
    assert process.returncode == 2
    assert "Address already in use" in process.stderr
    assert "--port" in process.stderr


@pytest.mark.long
@pytest.mark.parametrize("package", ["jinja2", "starlette", "uvicorn"])
def test_missing_extra(package: str) -> None:
    """If a package of the extra is missing, the error message says what to install."""
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from airflow_provider_cdm.simulator.__main__ import main\n"
        "sys.exit(main(['--port', '0']))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert process.returncode == 2
    assert f"needs {package}: pip install 'airflow-provider-cdm[simulator]'" in process.stderr


def test_imports_neither_airflow_nor_client() -> None:
    """The simulator imports neither Airflow nor the client, and its web server only on use."""
    code = (
        "import sys, airflow_provider_cdm.simulator as s\n"
        "late = {'jinja2', 'sqlalchemy', 'starlette', 'uvicorn', 'yaml'}\n"
        "assert not late & sys.modules.keys()\n"
        "with s.CdmSimulator(): pass\n"
        "loaded = [m for m in sys.modules if m == 'airflow' or m.startswith('airflow.')\n"
        "          or m.startswith('airflow_provider_cdm.client')]\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_start_and_stop_are_fast() -> None:
    """Starting and stopping together take well under a second."""
    started = time.monotonic()
    for _ in range(5):
        with CdmSimulator() as sim:
            requests.get(sim.url, timeout=5)
    assert time.monotonic() - started < 2.5


def test_idle_connections_do_not_delay_stop() -> None:
    """Idle connections of clients are closed when the simulator stops."""
    with requests.Session() as session:
        started = time.monotonic()
        with CdmSimulator() as sim:
            session.get(sim.url, timeout=5)
        assert time.monotonic() - started < 1
        with pytest.raises(requests.ConnectionError):
            session.get(sim.url, timeout=5)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_loopback_addresses(host: str) -> None:
    """All loopback addresses are allowed."""
    if host == "::1" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with CdmSimulator(host=host) as sim:
        assert requests.get(sim.url, timeout=5).status_code == 200


def test_connection_settings() -> None:
    """The connection has user, account, region, project, cluster and both endpoints."""
    with CdmSimulator() as sim:
        extra = sim.connection_extra
        assert extra["iam_endpoint"] == sim.connection["host"] == sim.url
        assert (extra["cluster_id"], extra["domain_name"]) == (sim.cluster_id, "acme")
        assert json.loads(sim.connection_json) == sim.connection
        host = f"http%3A%2F%2F127.0.0.1:{sim.url[17:]}"
        start = f"huaweicloud-cdm://airflow:{sim.password}@{host}"
        assert sim.connection_uri.startswith(start)


pytest_plugins = ["pytester"]


@pytest.mark.long
def test_pytest_plugin(pytester: pytest.Pytester) -> None:
    """The fixtures provide a configured simulator for each test, and a connection to it."""
    pytester.makeconftest('pytest_plugins = ["airflow_provider_cdm.simulator.pytest_plugin"]')
    pytester.makepyfile(
        """
        import json, os, pytest

        @pytest.fixture
        def cdm_simulator_config():
            return {"clusters": [{"name": "mine", "jobs": ["load"]}]}

        @pytest.mark.parametrize("turn", [1, 2])
        def test_it(turn, cdm_simulator, cdm_connection):
            connection = json.loads(os.environ["AIRFLOW_CONN_" + cdm_connection.upper()])
            assert connection["host"] == cdm_simulator.url
            assert cdm_simulator.start("load").submission_id == 1

        def test_afterwards():
            assert "AIRFLOW_CONN_CDM_DEFAULT" not in os.environ
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)

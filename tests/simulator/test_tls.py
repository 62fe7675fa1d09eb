"""The simulator with TLS."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.simulator.config.reader import ConfigError
from tests.simulator.test_process import COMMAND, ROOT, run

TLS = {"tls": True}


def state(sim: CdmSimulator, **options: Any) -> int:
    return requests.get(f"{sim.url}/_sim/state", timeout=5, **options).status_code


def test_a_connection_trusts_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection names the certificate, so tasks start jobs over TLS; nobody else trusts it."""
    with CdmSimulator(TLS) as sim:
        assert sim.url.startswith("https://127.0.0.1:")
        monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", sim.connection_json)
        sim.add_job("orders", seconds=0)
        assert CdmHook(cluster_id=sim.cluster_id).start_job("orders").submission_id == 1
        assert state(sim, verify=sim.certificate_file) == 200
        with pytest.raises(requests.exceptions.SSLError):
            state(sim, verify=True)
        file = sim.certificate_file
        assert file is not None
        assert b"PRIVATE KEY" not in file.read_bytes()
    assert not file.exists()
    assert sim.certificate_file is None


@pytest.mark.parametrize(
    ("host", "known"), [("localhost", True), ("cdm.internal", True), ("cdm.example", False)]
)
def test_names_of_the_certificate(host: str, known: bool) -> None:
    """The certificate is for this machine and for the names that the configuration lists, also for
    clients that are strict.
    """
    with CdmSimulator({**TLS, "hosts": ["cdm.internal"]}) as sim:
        context = ssl.create_default_context(cafile=sim.certificate_file)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        port = int(sim.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as plain:
            if known:
                context.wrap_socket(plain, server_hostname=host).close()
            else:
                with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
                    context.wrap_socket(plain, server_hostname=host)


@pytest.mark.parametrize("kind", ["drop", "reset"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_faults(kind: Any, when: Any) -> None:
    """Connections break over TLS as they do without."""
    with CdmSimulator({**TLS, "auth": False}) as sim:
        sim.add_job("orders")
        sim.fail("status", kind, when, times=1)
        with pytest.raises((requests.exceptions.ConnectionError, requests.exceptions.SSLError)):
            requests.get(
                f"{sim.url}/v1.1/{sim.project_id}/clusters/{sim.cluster_id}/cdm/job/orders/status",
                verify=str(sim.certificate_file),
                timeout=5,
            )


@pytest.mark.long
def test_a_hanging_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is not answered ends by the client's time limit, and the simulator then stops."""
    with CdmSimulator(TLS) as sim:
        extra = {**sim.connection_extra, "read_timeout": 0.2}
        connection = {**sim.connection, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
        monkeypatch.setattr(CdmHook, "session_options", {"sleep": lambda _: None})
        sim.add_job("orders")
        sim.fail("status", "hang", times=None)
        with pytest.raises(errors.CdmUnavailable):
            CdmHook(cluster_id=sim.cluster_id).get_job_status("orders")


def test_the_page_over_tls() -> None:
    """The page's own requests are answered."""
    with CdmSimulator(TLS) as sim:
        headers = {"Origin": sim.url, "Sec-Fetch-Site": "same-origin"}
        assert state(sim, headers=headers, verify=sim.certificate_file) == 200


def test_file_of_the_certificate(tmp_path: Path) -> None:
    """The file is beside the configuration; each start replaces it, and it stays."""
    (tmp_path / "cdm.yaml").write_text("tls: on\ncertificate: cdm.pem\n")
    file, seen = tmp_path / "cdm.pem", set()
    for _ in range(2):
        with CdmSimulator(tmp_path / "cdm.yaml") as sim:
            assert sim.certificate_file == file
            assert state(sim, verify=file) == 200
        seen.add(file.read_bytes())
    assert len(seen) == 2


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    """A path of another file is a mistake."""
    file = tmp_path / "bundle.pem"
    file.write_text("mine")
    simulator = CdmSimulator({**TLS, "certificate": str(file)})
    with pytest.raises(ValueError, match=r"was not made by a simulator"), simulator:
        pass
    assert file.read_text() == "mine"
    process = run("--tls", str(file), "--port", "0")
    assert (process.returncode, "was not made by a simulator" in process.stderr) == (2, True)


def test_a_certificate_without_tls() -> None:
    """A file without TLS is a mistake in the configuration."""
    with pytest.raises(ConfigError, match="tls: on only"):
        CdmSimulator({"certificate": "cdm.pem"})


@pytest.mark.long
@pytest.mark.parametrize("named", [True, False])
def test_command_line(named: bool, tmp_path: Path) -> None:
    """``--tls`` serves HTTPS; the connection that it prints names the certificate."""
    arguments = [str(tmp_path / "cdm.pem")] if named else []
    with subprocess.Popen(
        [*COMMAND, "--port", "0", "--tls", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        export = re.fullmatch(r"export \w+='(.*)'\n", process.stdout.readline())
        assert export is not None
        extra = json.loads(export[1])["extra"]
        assert requests.get(f"{url}/_sim/state", timeout=5, verify=extra["verify"]).ok
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert Path(extra["verify"]).exists() is named

"""A client that says exactly what a test tells it to; it knows nothing of the package's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm.simulator import CdmSimulator


def password_login(sim: CdmSimulator, **changes: Any) -> dict[str, Any]:
    user = {"name": sim.user, "password": sim.password, "domain": {"name": sim.domain}, **changes}
    identity = {"methods": ["password"], "password": {"user": user}}
    return {"auth": {"identity": identity, "scope": {"project": {"name": sim.region}}}}


class Cdm:
    """Talks to one cluster of a simulator, logging in when first needed."""

    def __init__(self, sim: CdmSimulator, cluster_id: str | None = None) -> None:
        self.sim = sim
        self.project = f"{sim.url}/v1.1/{sim.project_id}"
        self.base = f"{self.project}/clusters/{cluster_id or sim.cluster_id}/cdm"
        self._token: str | None = None

    def login(self) -> str:
        """Return a new token."""
        url = f"{self.sim.iam_url}/v3/auth/tokens?nocatalog=true"
        answer = requests.post(url, json=password_login(self.sim), timeout=5)
        assert answer.status_code == 201, answer.text
        return answer.headers["X-Subject-Token"]

    def call(self, method: str, url: str, **more: Any) -> requests.Response:
        """Send a request: to a whole URL, or to a path of the cluster."""
        self._token = self._token or self.login()
        headers = {"X-Auth-Token": self._token, **more.pop("headers", {})}
        address = url if url.startswith("http") else f"{self.base}/{url}"
        return requests.request(method, address, headers=headers, timeout=5, **more)

    def on_job(self, method: str, name: str, action: str = "", **more: Any) -> requests.Response:
        """Send a request about a job."""
        return self.call(method, f"job/{quote(name, safe='')}{action}", **more)

    def start(self, name: str, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Start a job and return the submission."""
        return _only(self.on_job("PUT", name, "/start", json={"variables": variables or {}}))

    def status(self, name: str) -> dict[str, Any]:
        """Return the newest submission of a job."""
        return _only(self.on_job("GET", name, "/status"))

    def history(self, name: str, **query: Any) -> dict[str, Any]:
        """Return the answer of the history route."""
        answer = self.call("GET", "submissions", params={"jname": name, **query})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def _only(answer: requests.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    [submission] = answer.json()["submissions"]
    found: dict[str, Any] = submission
    return found


def error_code(answer: requests.Response) -> str:
    body = answer.json()
    return str(body.get("errCode") or body.get("error_code"))

"""An HTTP client that sends exactly the given requests, without the client of the package."""

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
    """Sends requests to one cluster of a simulator, with a token that it requests on first use."""

    def __init__(self, sim: CdmSimulator, cluster_id: str | None = None) -> None:
        self.sim = sim
        self.project = f"{sim.url}/v1.1/{sim.project_id}"
        self.base = f"{self.project}/clusters/{cluster_id or sim.cluster_id}/cdm"
        self._token: str | None = None

    def login(self) -> str:
        """Request a new token and return it."""
        url = f"{self.sim.iam_url}/v3/auth/tokens?nocatalog=true"
        response = requests.post(url, json=password_login(self.sim), timeout=5)
        assert response.status_code == 201, response.text
        return response.headers["X-Subject-Token"]

    def forget_token(self) -> None:
        """Request a new token with the next call."""
        self._token = None

    def call(self, method: str, url: str, **options: Any) -> requests.Response:
        """Send a request to a complete URL, or to a path below that of the cluster."""
        self._token = self._token or self.login()
        headers = {"X-Auth-Token": self._token, **options.pop("headers", {})}
        address = url if url.startswith("http") else f"{self.base}/{url}"
        options.setdefault("timeout", 5)
        return requests.request(method, address, headers=headers, **options)

    def on_job(self, method: str, name: str, action: str = "", **options: Any) -> requests.Response:
        """Send a request about a job."""
        return self.call(method, f"job/{quote(name, safe='')}{action}", **options)

    def start(self, name: str, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Start a job and return the submission."""
        return _single_submission(
            self.on_job("PUT", name, "/start", json={"variables": variables or {}})
        )

    def status(self, name: str) -> dict[str, Any]:
        """Return the newest submission of a job."""
        return _single_submission(self.on_job("GET", name, "/status"))

    def history(self, name: str, **query: Any) -> dict[str, Any]:
        """Return the body of the history route."""
        response = self.call("GET", "submissions", params={"jname": name, **query})
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body


def _single_submission(response: requests.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    [submission] = response.json()["submissions"]
    run: dict[str, Any] = submission
    return run


def error_code(response: requests.Response) -> str:
    body = response.json()
    return str(body.get("errCode") or body.get("error_code"))

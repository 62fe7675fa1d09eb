"""The connections of the scan, with right and wrong credentials, and the account of their users."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.credentials import ACCOUNT, CONNECTIONS

#: The user of all wrong credentials, so that failed log-ins do not lock the account of the others.
CLUMSY = {
    "name": "clumsy",
    "password": "right/pass+word-of-clumsy",
    "access_keys": [
        {"access_key": "AKCLUMSY000000000001", "secret_key": "SKclumsy/000+right000001"},
        {
            "access_key": "AKCLUMSY000000000002",
            "secret_key": "SKclumsy/000+right000002",
            "security_token": "STclumsy/" + "rightToken" * 20,
        },
    ],
}
WRONG_PASSWORD = 'wrong/"pass word"+of&clumsy'
WRONG_SECRET_KEY = "SKclumsy/000+wrong000009"
WRONG_SECURITY_TOKEN = "STclumsy/" + "wrongToken" * 20
PROXY_PASSWORD = "password-of-the+proxy%2F"
#: Wrong connections by name: the working kind they start from, and the fields and the extra fields
#: that are replaced.
WRONG: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "wrong password": ("password", {"login": "clumsy", "password": WRONG_PASSWORD}, {}),
    "wrong secret key": (
        "keys",
        {},
        {"access_key": "AKCLUMSY000000000001", "secret_key": WRONG_SECRET_KEY},
    ),
    "wrong security token": (
        "temporary keys",
        {},
        {
            "access_key": "AKCLUMSY000000000002",
            "secret_key": "SKclumsy/000+right000002",
            "security_token": WRONG_SECURITY_TOKEN,
        },
    ),
    "wrong password for an agency": (
        "agency by password",
        {"login": "clumsy", "password": WRONG_PASSWORD},
        {},
    ),
    "no such agency": ("agency by keys", {}, {"agency_name": "nobodys"}),
    "wrong keys as for the other provider": (
        "keys as for the other provider",
        {"login": "AKCLUMSY000000000001", "password": WRONG_SECRET_KEY},
        {},
    ),
    "proxy that is away": (
        "password",
        {},
        {"proxy": f"http://me:{PROXY_PASSWORD}@127.0.0.1:1", "connect_timeout": 2},
    ),
    "password that is missing": ("password", {"password": None}, {}),
    "both kinds at once": (
        "password",
        {"password": WRONG_PASSWORD},
        {"access_key": "AKCLUMSY000000000001", "secret_key": WRONG_SECRET_KEY},
    ),
}
#: Kinds of connections that are also stored in the metadata database.
STORED = ("password", "temporary keys")
#: Secrets that a DAG leaks on purpose, by place.
PLANTED = {
    "printed": "planted-in-a-print-0123456789",
    "written": "planted-in-a-file-0123456789",
    "to stderr": "planted-in-stderr-0123456789",
    "returned": "planted/in+the database 0123456789",
    "in HTML": "planted-in-a-page-0123456789",
    "in JSON": "planted-in-a-body-0123456789",
    "in an address": "p/l+a=n&t?e/d+i=n&a?n/a+d=r&e?s/s",
}


@dataclass(frozen=True)
class Case:
    """A connection and its DAG.

    :param connection: connection as plain data.
    :param good: whether the credentials are right.
    :param stored: whether the connection is in the metadata database, not in the environment.
    """

    name: str
    connection: dict[str, Any] = field(repr=False)
    good: bool
    stored: bool = False

    @property
    def slug(self) -> str:
        """The name in a form for DAGs, connections and environment variables."""
        return f"{'stored ' * self.stored}{self.name}".replace(" ", "_").replace(",", "")

    @property
    def retries(self) -> dict[str, int]:
        """The outcomes of its jobs, and the retries of their tasks."""
        # Retries where a task must succeed, because Airflow may lose a task under load.
        return {"good": 3, "bad": 0} if self.good else {"good": 0}


def simulator() -> CdmSimulator:
    """Return a simulator with an account for all kinds of credentials, and the clumsy user."""
    account = copy.deepcopy(ACCOUNT)
    account["users"].append(CLUMSY)
    return CdmSimulator(account)


def cases(sim: CdmSimulator, folder: Path) -> Iterator[Case]:
    """Yield all connections of the scan."""
    for name, make in CONNECTIONS.items():
        yield Case(name, make(sim), good=True)
    for name in STORED:
        yield Case(name, CONNECTIONS[name](sim), good=True, stored=True)
    cached = CONNECTIONS["password"](sim)
    cached["extra"]["token_cache"] = str(folder / "airflow" / "token_cache")
    yield Case("password with token cache", cached, good=True)
    for name, (kind, fields, extra) in WRONG.items():
        connection = CONNECTIONS[kind](sim)
        connection["extra"] |= extra
        yield Case(name, connection | fields, good=False)


def secrets_of(cases: list[Case]) -> dict[str, str]:
    """Return all secrets of the connections by name."""
    secrets = {"password of the proxy": PROXY_PASSWORD}
    for case in cases:
        for fields in (case.connection, case.connection["extra"]):
            for name in ("password", "secret_key", "security_token"):
                if fields.get(name):
                    secrets[f"{name} of {case.name}"] = fields[name]
    return secrets


def tokens_of(sim: CdmSimulator) -> dict[str, str]:
    """Return all tokens that were issued and not revoked, or sent, by name."""
    issued = {token.value: token.method for token in sim._backend.iam.tokens.values()}
    for request in sim.requests:
        if token := request.headers.get("x-auth-token"):
            issued.setdefault(token, f"sent to {request.route}")
    return {f"token {n} ({method})": token for n, (token, method) in enumerate(issued.items())}


def add_jobs(sim: CdmSimulator, cases: list[Case]) -> None:
    """Add a job for each task that starts one, because a job can run only once at a time."""
    for case in cases:
        cluster = case.connection["extra"]["cluster_id"]
        for task in ("worker", "triggerer", "start"):
            for job in case.retries:
                outcome = {"good": "SUCCEEDED", "bad": "FAILED"}[job]
                sim.add_job(f"{case.slug}-{task}_{job}", cluster, seconds=8, outcomes=[outcome])


def environment(cases: list[Case], folder: Path) -> dict[str, str]:
    """Return the environment of Airflow, with connections and the log level DEBUG."""
    connections = {
        f"AIRFLOW_CONN_{case.slug.upper()}": json.dumps(case.connection)
        for case in cases
        if not case.stored
    }
    return connections | {
        "CDM_SECRETS_FOLDER": str(folder),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
    }

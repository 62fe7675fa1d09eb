"""Every kind of credentials that a connection may hold, and an account that accepts all of them.

Test reports show the names of the kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_cdm.simulator import CdmSimulator

REGION = "eu-west-101"
PASSWORD = "s3cret/pass+word"
KEYS = {"access_key": "AKEXAMPLE0000000001", "secret_key": "SKexample/000+0000000001"}
TEMPORARY_KEYS = {
    "access_key": "AKTEMPORARY000000001",
    "secret_key": "SKtemporary/000+00000001",
    "security_token": "STexample/" + "gQpbc+" * 30,
}
#: Configuration of the account, and of another one that delegates a project of that name to it.
ACCOUNT: dict[str, Any] = {
    "users": [{"name": "airflow", "password": PASSWORD, "access_keys": [KEYS, TEMPORARY_KEYS]}],
    "projects": [{"name": REGION}, {"name": REGION, "domain": "partner", "id": "f" * 32}],
    "agencies": [{"name": "migrations", "domain": "partner"}],
    "clusters": [{"name": "own"}, {"name": "delegated", "project": "f" * 32}],
}
AGENCY = {"agency_name": "migrations", "agency_domain_name": "partner"}


def _connection(sim: CdmSimulator, extra: dict[str, Any], **fields: Any) -> dict[str, Any]:
    cluster = sim.config.clusters["agency_name" in extra]
    common = {"region": REGION, "iam_endpoint": sim.iam_url, "cluster_id": cluster.id}
    connection = {"conn_type": "huaweicloud_cdm", "host": sim.url, "extra": {**common, **extra}}
    return {**connection, **fields}


def _with_password(sim: CdmSimulator, **extra: Any) -> dict[str, Any]:
    return _connection(
        sim, {"domain_name": sim.domain, **extra}, login="airflow", password=PASSWORD
    )


#: Functions that return the Airflow connection of a kind, as plain data with a region and no
#: project id.
CONNECTIONS: dict[str, Callable[[CdmSimulator], dict[str, Any]]] = {
    "password": _with_password,
    "keys": lambda sim: _connection(sim, {**KEYS}),
    "temporary keys": lambda sim: _connection(sim, {**TEMPORARY_KEYS}),
    "agency by password": lambda sim: _with_password(sim, **AGENCY),
    "agency by keys": lambda sim: _connection(sim, {**KEYS, **AGENCY}),
    "agency by temporary keys": lambda sim: _connection(sim, {**TEMPORARY_KEYS, **AGENCY}),
    "keys as for the other provider": lambda sim: _connection(
        sim,
        {},
        conn_type="huaweicloud",
        login=KEYS["access_key"],
        password=KEYS["secret_key"],
    ),
}

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.simulator.config.config import load
from airflow_provider_cdm.simulator.config.reader import ConfigError
from tests.support.raw_client import Cdm

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulator.conftest import Database

YAML = """
domain: acme
auth: off
quotas: off
behaviour: {stop_status: FAILED, timezone: UTC}
clusters:
  - id: 6ec9a0a4-76be-4262-8697-e7af1fac7920
    name: demo
    links:
      - {name: shop, url: "sqlite:///shop.db"}
      - {name: warehouse, url: "sqlite:///warehouse.db"}
    jobs:
      - plain
      - name: orders_daily
        from: {link: shop, table: orders, where: "day = '${dt}'", columns: [id, day]}
        to: {link: warehouse, table: orders}
        seconds: 1
      - {name: broken, outcome: FAILED, error_summary: No space left.}
"""


def test_yaml_file(tmp_path: Path, shop: Database, warehouse: Database) -> None:
    """Jobs of a YAML file run, with database paths relative to its folder."""
    path = tmp_path / "cdm.yaml"
    path.write_text(YAML)
    clock = ManualClock()
    with CdmSimulator(path, clock=clock) as sim:
        assert sim.cluster_id == "6ec9a0a4-76be-4262-8697-e7af1fac7920"
        sim.start("orders_daily", variables={"dt": "2025-01-01"})
        sim.start("broken")
        sim.start("plain")
        clock.advance(2)
        names = ("orders_daily", "broken", "plain")
        assert [sim.runs(name)[0].status for name in names] == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    assert warehouse.rows() == [(1, "2025-01-01", None, None), (2, "2025-01-01", None, None)]


def test_job_object_of_a_configured_job(tmp_path: Path, shop: Database) -> None:
    """A job configured in the short form is shown as the documented job object."""
    path = tmp_path / "cdm.yaml"
    path.write_text(YAML)
    with CdmSimulator(str(path)) as sim:
        [shown] = Cdm(sim).on_job("GET", "orders_daily").json()["jobs"]
    assert (shown["from-connector-name"], shown["from-link-name"]) == (
        "generic-jdbc-connector",
        "shop",
    )
    [block] = shown["from-config-values"]["configs"]
    assert block["name"] == "fromJobConfig"
    assert {"name": "fromJobConfig.whereClause", "value": "day = '${dt}'"} in block["inputs"]
    assert {"name": "fromJobConfig.columnList", "value": "id&day"} in block["inputs"]


def test_all_problems_at_once() -> None:
    """An invalid configuration is reported with all problems, their locations and allowed keys."""
    config: dict[str, Any] = {
        "domian": "acme",
        "users": [{"password": 1}],
        "behaviour": {"dates_as": "text", "timezone": "Mars/Olympus"},
        "databases": {"x": "not a url"},
        "clusters": [
            {
                "name": "demo",
                "links": [{"name": "shop"}],
                "jobs": [
                    {"name": "a", "seconds": {"running": -1}, "outcomes": ["WON"]},
                    {"name": "b", "from": {"link": "shop"}},
                ],
            }
        ],
    }
    with pytest.raises(ConfigError) as caught:
        load(config)
    text = "\n".join(caught.value.problems)
    for part in (
        "domian: unknown key; allowed keys: agencies, auth,",
        "users[0].name: required key is missing",
        "users[0].password: expected text (in quotes), got another type",
        "behaviour.dates_as: expected one of number, string, got 'text'",
        "clusters[0].jobs[0].seconds.running: expected a number of seconds, zero or more",
        (
            "clusters[0].jobs[0].outcomes[0].outcome: expected one of SUCCEEDED, FAILED, "
            "FAILURE_ON_SUBMIT, got"
        ),
        "clusters[0].jobs[1].from: expected either table or sql",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"behaviour": {"timezone": "Mars/Olympus"}}, "there is no time zone 'Mars/Olympus'"),
        ({"databases": {"x": "secret"}}, "SQLAlchemy cannot parse a database URL"),
        ({"users": []}, "users: expected at least one"),
        ({"clusters": [{"name": "a"}, {"name": "a"}]}, "is defined 2 times"),
        ({"clusters": [{"name": "a", "project": "x"}]}, "project 'x' is not one of the projects"),
        ({"clusters": [{"name": "a", "jobs": ["j", "j"]}]}, "jobs: 'j' is defined 2 times"),
        ({"clusters": "demo"}, "clusters: expected a list"),
        ({"seconds": True}, "seconds: expected a mapping"),
        (
            {
                "clusters": [
                    {
                        "name": "a",
                        "jobs": [
                            {
                                "name": "j",
                                "from": {"link": "x", "table": "t"},
                                "to": {"link": "x", "table": "t"},
                            }
                        ],
                    }
                ]
            },
            "job j: link 'x' is not one of its links",
        ),
        (
            {"clusters": [{"name": "a", "jobs": [{"name": "j", "to": {"link": "", "table": ""}}]}]},
            "expected both from and to, or neither",
        ),
    ],
)
def test_inconsistent_configuration(config: dict[str, Any], problem: str) -> None:
    """Inconsistencies between several values are reported."""
    with pytest.raises(ConfigError, match=problem):
        CdmSimulator(config)


def test_unreadable_files(tmp_path: Path) -> None:
    """The error for a missing file, or one that is not YAML, contains its name."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml: is not valid YAML"):
        load(str(tmp_path / "bad.yaml"))


def test_settings_of_python_calls_are_validated(sim: CdmSimulator) -> None:
    """Arguments of ``add_job`` and ``add_link`` are validated like the configuration."""
    with pytest.raises(ConfigError, match=r"job load\.colour: unknown key"):
        sim.add_job("load", colour="red")
    with pytest.raises(ConfigError, match="link shop: SQLAlchemy cannot parse a database URL"):
        sim.add_link("shop", url="?")


def test_ids_are_stable() -> None:
    """Generated ids are the same in every process, and have the format of the cloud."""
    first, second = CdmSimulator(), CdmSimulator()
    assert (first.project_id, first.cluster_id) == (second.project_id, second.cluster_id)
    assert len(first.project_id) == 32
    assert first.cluster_id.count("-") == 4


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.org", "::"])
def test_loopback_only(host: str) -> None:
    """An address that other machines can reach is rejected unless it is explicitly allowed."""
    with pytest.raises(ValueError, match="allow_any_host=True"):
        CdmSimulator(host=host)
    CdmSimulator(host=host, allow_any_host=True)


def test_repr_without_secrets(tmp_path: Path) -> None:
    """``repr`` of a configuration contains no passwords, secret keys and database URLs."""
    users = [
        {
            "name": "a",
            "password": "hidden1",
            "access_keys": [{"access_key": "AK", "secret_key": "hidden2"}],
        }
    ]
    links = [{"name": "x", "url": "sqlite:///hidden3"}]
    config = {
        "users": users,
        "databases": {"y": "sqlite:///hidden4"},
        "clusters": [{"name": "demo", "links": links}],
    }
    assert "hidden" not in repr(load(config))

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


def test_yaml(tmp_path: Path, shop: Database, warehouse: Database) -> None:
    """A YAML file sets up jobs whose relative databases lie next to it, and they run."""
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


def test_short_form_is_shown_in_full(tmp_path: Path, shop: Database) -> None:
    """What a job is configured with in short is shown as the documented object."""
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
    """A wrong configuration is reported in full, with places and the keys that are allowed."""
    wrong: dict[str, Any] = {
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
        load(wrong)
    text = "\n".join(caught.value.problems)
    for part in (
        "domian: unknown key; allowed here: agencies, auth,",
        "users[0].name: missing",
        "users[0].password: text (in quotes) wanted, got something else",
        "behaviour.dates_as: one of number, string wanted, got 'text'",
        "clusters[0].jobs[0].seconds.running: a number of seconds",
        "clusters[0].jobs[0].outcomes[0].outcome: one of SUCCEEDED, FAILED, FAILURE_ON_SUBMIT",
        "clusters[0].jobs[1].from: give either table or sql",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"behaviour": {"timezone": "Mars/Olympus"}}, "there is no time zone 'Mars/Olympus'"),
        ({"databases": {"x": "secret"}}, "a database URL is not one that SQLAlchemy can read"),
        ({"users": []}, "users: at least one is needed"),
        ({"clusters": [{"name": "a"}, {"name": "a"}]}, "is given 2 times"),
        ({"clusters": [{"name": "a", "project": "x"}]}, "project 'x' is not among the projects"),
        ({"clusters": [{"name": "a", "jobs": ["j", "j"]}]}, "jobs: 'j' is given 2 times"),
        ({"clusters": "demo"}, "clusters: a list wanted"),
        ({"seconds": True}, "seconds: a mapping wanted"),
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
            "job j: link 'x' is not among its links",
        ),
        (
            {"clusters": [{"name": "a", "jobs": [{"name": "j", "to": {"link": "", "table": ""}}]}]},
            "from and to belong together",
        ),
    ],
)
def test_contradictions(config: dict[str, Any], problem: str) -> None:
    """What no single value shows is a problem too."""
    with pytest.raises(ConfigError, match=problem):
        CdmSimulator(config)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and one that is not YAML are told by name."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml: is not YAML"):
        load(str(tmp_path / "bad.yaml"))


def test_settings_of_python_calls_are_checked(sim: CdmSimulator) -> None:
    """Keywords of add_job and add_link are checked as the configuration is."""
    with pytest.raises(ConfigError, match=r"job load\.colour: unknown key"):
        sim.add_job("load", colour="red")
    with pytest.raises(ConfigError, match="link shop: a database URL"):
        sim.add_link("shop", url="?")


def test_ids_are_stable() -> None:
    """The ids that are made up are the same in every process, and look like the cloud's."""
    first, second = CdmSimulator(), CdmSimulator()
    assert (first.project_id, first.cluster_id) == (second.project_id, second.cluster_id)
    assert len(first.project_id) == 32
    assert first.cluster_id.count("-") == 4


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.org", "::"])
def test_loopback_only(host: str) -> None:
    """An address that others can reach is refused unless that is said to be meant."""
    with pytest.raises(ValueError, match="allow_any_host=True"):
        CdmSimulator(host=host)
    CdmSimulator(host=host, allow_any_host=True)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """Neither passwords nor keys nor database URLs show in the text of a configuration."""
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

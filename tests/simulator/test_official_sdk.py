"""The official SDK must be able to use the simulator and to parse its responses."""

from __future__ import annotations

import time
from typing import Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock

sdk: Any = pytest.importorskip("huaweicloudsdkcdm.v1")
core: Any = pytest.importorskip("huaweicloudsdkcore.exceptions.exceptions")
credentials: Any = pytest.importorskip("huaweicloudsdkcore.auth.credentials")

KEY = {"access_key": "AKEXAMPLE0000000001", "secret_key": "SKexample"}
USER = {"name": "airflow", "password": "x", "access_keys": [KEY]}


@pytest.fixture(params=[False, True], ids=["auth-off", "signed"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    links = [{"name": "in"}, {"name": "out"}]
    clusters = [{"name": "demo", "links": links}]
    return {"auth": request.param, "users": [USER], "clusters": clusters}


@pytest.fixture
def clock() -> ManualClock:
    """Start at the current time, since the SDK signs with the clock of the machine."""
    return ManualClock(time.time())


@pytest.fixture
def client(sim: CdmSimulator) -> Any:
    basic = credentials.BasicCredentials(KEY["access_key"], KEY["secret_key"], sim.project_id)
    builder = sdk.CdmClient.new_builder().with_credentials(basic)
    return builder.with_endpoint(sim.url).build()


def job(name: str) -> Any:
    inputs = [sdk.Input(name="fromJobConfig.tableName", value="t")]
    values = sdk.ConfigValues(configs=[sdk.Configs(name="fromJobConfig", inputs=inputs)])
    return sdk.Job(
        name=name,
        job_type="NORMAL_JOB",
        from_connector_name="generic-jdbc-connector",
        from_link_name="in",
        from_config_values=values,
        to_connector_name="generic-jdbc-connector",
        to_link_name="out",
        to_config_values=sdk.ConfigValues(configs=[]),
        driver_config_values=sdk.ConfigValues(configs=[]),
    )


@pytest.mark.parametrize("name", ["jdbc2hive", "每日 订单"])
def test_all_calls_about_a_job(
    sim: CdmSimulator, client: Any, clock: ManualClock, name: str
) -> None:
    """The SDK creates, lists, starts, polls, stops and deletes a job, and parses each response."""
    ids = {"cluster_id": sim.cluster_id}
    body = sdk.CdmCreateJobJsonReq(jobs=[job(name)])
    assert client.create_job(sdk.CreateJobRequest(body=body, **ids)).name == name
    [listed] = client.show_jobs(sdk.ShowJobsRequest(job_name="all", **ids)).jobs
    assert (listed.name, listed.status, listed.from_link_name) == (name, "NEW", "in")
    single = client.show_jobs(sdk.ShowJobsRequest(job_name=name, **ids))
    assert (single.total, single.jobs[0].enabled) == (0, True)

    request = sdk.StartJobRequest(
        job_name=name, body=sdk.CdmStartJobReq(variables={"dt": "x"}), **ids
    )
    [started] = client.start_job(request).submissions
    assert (started.submission_id, started.status) == (1, "BOOTING")
    with pytest.raises(core.ClientRequestException) as refused:
        client.start_job(request)
    assert "Cdm.0052" in refused.value.error_msg

    clock.advance(1)
    [run] = client.show_job_status(sdk.ShowJobStatusRequest(job_name=name, **ids)).submissions
    counters = run.counters.org_apache_sqoop_submission_counter_sqoop_counters
    assert (run.status, run.progress, counters.rows_read) == ("SUCCEEDED", 100.0, 0)
    client.start_job(request)
    client.stop_job(sdk.StopJobRequest(job_name=name, **ids))
    clock.advance(1)
    history = client.show_submissions(sdk.ShowSubmissionsRequest(jname=name, **ids))
    assert [run.status for run in history.submissions] == ["STOPPED", "SUCCEEDED"]
    assert (history.total, history.submissions[0].creation_date) == (
        2,
        int(sim.runs(name)[1].created * 1000),
    )
    client.delete_job(sdk.DeleteJobRequest(job_name=name, **ids))
    assert client.show_jobs(sdk.ShowJobsRequest(job_name="all", **ids)).jobs == []


def test_clusters_and_links(sim: CdmSimulator, client: Any, clock: ManualClock) -> None:
    """The SDK parses clusters and links, and stops and starts a cluster."""
    [cluster] = client.list_clusters(sdk.ListClustersRequest()).clusters
    assert (cluster.id, cluster.status) == (sim.cluster_id, "200")
    ids = {"cluster_id": sim.cluster_id}
    shown = client.show_link(sdk.ShowLinkRequest(link_name="in", **ids))
    assert shown.links[0].connector_name == "generic-jdbc-connector"
    mode = sdk.CdmStopClusterReqStop(stop_mode="IMMEDIATELY", delay_time=-1)
    client.stop_cluster(sdk.StopClusterRequest(body=sdk.CdmStopClusterReq(stop=mode), **ids))
    clock.advance(2)
    detail = client.show_cluster_detail(sdk.ShowClusterDetailRequest(**ids))
    assert (detail.status, detail.instances[0].type) == ("900", "cdm")
    client.start_cluster(sdk.StartClusterRequest(body=sdk.CdmStartClusterReq(start={}), **ids))

"""The package as Airflow discovers it."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
import yaml

import airflow_provider_cdm
from airflow_provider_cdm import get_provider_info
from airflow_provider_cdm._compat import HAS_ASSET_WATCHERS
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.task_harness import has_task_state_store

INFO = get_provider_info()
ROOT = Path(airflow_provider_cdm.__file__).parent


REPOSITORY = Path(__file__).parents[1]


def run_airflow(*arguments: str) -> str:
    """Run Airflow's command line and return the last line; it prints warnings on Python 3.14."""
    process = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout.splitlines()[-1]


def test_provider_info_is_valid_for_this_airflow() -> None:
    """The schema of the installed Airflow accepts the provider info."""
    schema = Path(airflow.__file__).parent / "provider_info.schema.json"
    jsonschema.validate(INFO, json.loads(schema.read_text()))


def test_provider_yaml_equals_the_provider_info() -> None:
    """``provider.yaml`` is valid and has the same content as the provider info."""
    provider_yaml = yaml.safe_load((ROOT / "provider.yaml").read_text())
    schema = json.loads((Path(airflow.__file__).parent / "provider.yaml.schema.json").read_text())
    connection = schema["properties"]["connection-types"]["items"]["properties"]
    if "conn-fields" in connection:  # below Airflow 3.2 forms were code
        newer = {"retry-policies"} - schema["properties"].keys()  # 3.4
        known = {name: value for name, value in provider_yaml.items() if name not in newer}
        jsonschema.validate(known, schema)
    assert provider_yaml.pop("state") == "ready"
    provider_yaml.pop("source-date-epoch")
    assert provider_yaml == INFO


def test_package_name_is_the_distribution() -> None:
    """The provider info names its own distribution; Airflow rejects all providers otherwise."""
    assert importlib.metadata.metadata("airflow-provider-cdm")["Name"] == INFO["package-name"]
    assert importlib.metadata.version("airflow-provider-cdm") == airflow_provider_cdm.__version__


@pytest.mark.parametrize("kind", ["operators", "sensors", "hooks", "triggers", "retry-policies"])
def test_listed_modules_exist(kind: str) -> None:
    """Every module that the provider info names can be imported."""
    for entry in INFO[kind]:
        for module in entry["python-modules"]:
            importlib.import_module(module)


def test_listed_pages_exist() -> None:
    """The logo and the guides of the provider info are files of the repository."""
    (integration,) = INFO["integrations"]
    for path in (integration["logo"], *integration["how-to-guide"]):
        assert (REPOSITORY / path.removeprefix("/")).is_file(), path


@pytest.mark.parametrize(
    "path", [INFO["connection-types"][0]["hook-class-name"], *INFO["extra-links"]]
)
def test_listed_classes_exist(path: str) -> None:
    """Every class that the provider info names exists."""
    module, name = path.rsplit(".", 1)
    assert isinstance(getattr(importlib.import_module(module), name), type)


@pytest.mark.long
def test_airflow_lists_the_provider_and_accepts_its_connection(airflow_database: None) -> None:
    """``airflow providers list`` shows the provider, and ``connections add`` accepts its connection
    type.
    """
    providers: list[dict[str, Any]] = json.loads(run_airflow("providers", "list", "-o", "json"))
    assert "airflow-provider-cdm" in [provider["package_name"] for provider in providers]
    hooks = json.loads(run_airflow("providers", "hooks", "-o", "json"))
    assert "huaweicloud_cdm" in [hook["connection_type"] for hook in hooks]
    extra = json.dumps({"region": "eu-west-101", "domain_name": "acme"})
    run_airflow(
        *("connections", "add", "cdm_cli", "--conn-type", "huaweicloud_cdm"),
        *("--conn-login", "airflow", "--conn-password", "a-password", "--conn-extra", extra),
    )
    connections = json.loads(run_airflow("connections", "get", "cdm_cli", "-o", "json"))
    assert connections[0]["conn_type"] == "huaweicloud_cdm"


EXAMPLES = ROOT / "example_dags"
#: The tests run on the built wheel; a source tree has its examples at the top level.
wheel_only = pytest.mark.skipif(ROOT.parent.name != "site-packages", reason="not a built wheel")


def relative_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files of a folder by their relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@wheel_only
def test_wheel_has_the_examples_and_the_demo() -> None:
    """The wheel has the example DAGs where Airflow's providers have theirs, and no file else."""
    distribution = importlib.metadata.distribution("airflow-provider-cdm")
    files = {str(file) for file in distribution.files or []}
    package = "airflow_provider_cdm"
    examples = relative_files(Path(__file__).parents[1] / "example_dags")
    assert relative_files(EXAMPLES) == examples
    assert {f"{package}/example_dags/{name}" for name in examples} <= files
    assert f"{package}/simulator/demo/simulator.yaml" in files
    assert f"{package}/simulator/demo/dags/cdm_demo.py" in files
    tops = {file.split("/")[0] for file in files if "__pycache__" not in file}
    assert {top for top in tops if not top.endswith(".dist-info")} == {package}


@wheel_only
def test_airflow_finds_the_examples() -> None:
    """With ``[core] load_examples``, an Airflow that looks for examples of providers finds ours."""
    script = """if True:
        import airflow.dag_processing.bundles.manager as manager
        if hasattr(manager, "_add_provider_example_dags_to_bundle"):
            for bundle in manager.DagBundlesManager().get_all_dag_bundles():
                print("BUNDLE", bundle.path)
        else:
            print("NONE")
    """
    if airflow.__version__.startswith("2."):
        pytest.skip("Airflow 2 has examples of its own only")
    environment = {**os.environ, "AIRFLOW__CORE__LOAD_EXAMPLES": "True"}
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    if "NONE" in process.stdout.splitlines():
        pytest.skip("this Airflow does not look for examples of providers")
    assert f"BUNDLE {EXAMPLES}" in process.stdout.splitlines()


#: What a DAG file with an operator and a sensor imports: arguments and descriptions of tasks.
#: With the package itself, ``_compat`` and ``connection`` there must not be more than 20 modules.
PARSED_MODULES = {
    "client",
    "client.arguments",
    "client.errors",
    "client.text",
    "links",
    "operators",
    "operators.job_run",
    "operators.start_job",
    "retry_policy",
    "sensors",
    "sensors.base",
    "sensors.cluster",
    "sensors.submission",
    "tasks",
    "tasks.base",
    "tasks.outcome",
}


#: What the other operators add to these.
PARSED_MODULES_OF_ALL = PARSED_MODULES | {
    "operators.base",
    "operators.clusters",
    "operators.restart_cluster",
    "operators.definition",
    "operators.jobs",
    "operators.links",
    "operators.run_job",
}


@pytest.mark.parametrize(
    ("operators", "expected"),
    [("CdmStartJobOperator", PARSED_MODULES), ("*", PARSED_MODULES_OF_ALL)],
    ids=["one", "all"],
)
def test_parsing_a_dag_imports_no_more_than_describes_its_tasks(
    operators: str, expected: set[str]
) -> None:
    """Importing and creating tasks loads few modules: none of another package, none that runs, and
    none of an operator that the DAG file does not name.
    """
    script = """if True:
        import sys, json
        import html  # small, and already imported by most versions of Airflow
        import airflow_provider_cdm._compat as compat
        before = set(sys.modules)
        from airflow_provider_cdm.operators import OPERATORS
        from airflow_provider_cdm.sensors import CdmSubmissionSensor
        after = set(sys.modules)
        CdmStartJobOperator(
            task_id="start", job_name="shop", variables={"day": "{{ ds }}"}, min_rows_written=1,
            wait_for_completion=True,
        )
        CdmSubmissionSensor(task_id="wait", job_name="shop", submission_id=1)
        created = {name for name in set(sys.modules) - after if "airflow_provider_cdm" in name}
        print(json.dumps(sorted((after - before) | created)))
    """
    script = script.replace("OPERATORS", operators)
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    imported = json.loads(process.stdout.splitlines()[-1])
    # The discovery of providers may have imported the description of the connection.
    modules = {name.removeprefix("airflow_provider_cdm.") for name in imported}
    assert modules - {"connection", "connection.fields"} == expected


#: What a task that starts a job with a password, and does not wait for it, has no use for.
NOT_FOR_A_START = (
    "client.auth.access_key",
    "client.auth.token_cache",
    "client.clusters",
    "client.jobs.earlier_start",
    "client.jobs.follower",
    "client.jobs.stop",
    "client.polling",
    "client.whole_database",
    "tasks.kills",
    "tasks.run_wait",
    "triggers",
)


def modules_of_a_start(before: str = "") -> tuple[list[str], list[str]]:
    """Start a job in a new process, with a password.

    :param before: statement to execute before.
    :returns: names of the modules that are loaded then, and of those that the start has loaded.
    """
    script = f"""if True:
        import sys, json, os
        from airflow.sdk.bases.operator import ExecutorSafeguard
        from tests.support.task_harness import TaskRunner
        {before}
        begin = set(sys.modules)
        from airflow_provider_cdm.operators import CdmStartJobOperator
        ExecutorSafeguard.test_mode = True
        runner = TaskRunner(advance=lambda seconds: None)
        result = runner.run(lambda: CdmStartJobOperator(task_id="start", job_name="orders"))
        assert result["submission_id"] == 1
        print(json.dumps([sorted(sys.modules), sorted(set(sys.modules) - begin)]))
    """
    with CdmSimulator({"clusters": [{"name": "demo", "jobs": [{"name": "orders"}]}]}) as sim:
        environment = {**os.environ, "AIRFLOW_CONN_CDM_DEFAULT": sim.connection_json}
        process = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=Path(__file__).parents[1],
        )
    assert process.returncode == 0, process.stderr[-2000:]
    loaded, added = json.loads(process.stdout.splitlines()[-1])
    return loaded, added


needs_task_state_store = pytest.mark.skipif(
    not has_task_state_store(), reason="the journal needs Airflow's database"
)


@needs_task_state_store
def test_a_start_imports_no_more_than_it_needs() -> None:
    """Each task is a new process, so what a start does not use is not imported."""
    loaded, _ = modules_of_a_start()
    modules = [name.removeprefix("airflow_provider_cdm.") for name in loaded]
    assert [name for name in modules if name.startswith(NOT_FOR_A_START)] == []


@pytest.mark.long
@needs_task_state_store
def test_preload_imports_what_a_start_needs() -> None:
    """After ``airflow_provider_cdm.preload``, a start imports nothing of this package, and not
    ``requests``.
    """
    _, added = modules_of_a_start("import airflow_provider_cdm.preload")
    tops = ("airflow_provider_cdm", "requests", "urllib3")
    assert [name for name in added if name.startswith(tops)] == []


@pytest.mark.long
def test_local_settings_of_the_documentation(tmp_path: Path) -> None:
    """Airflow starts with the file that the documentation shows, and has then imported what tasks
    of this package run.
    """
    config = tmp_path / "config"
    config.mkdir()
    snippet = Path(__file__).parents[1] / "docs" / "snippets" / "airflow_local_settings.py"
    (config / snippet.name).write_text(snippet.read_text())
    script = "import airflow.dag_processing.processor, sys; print(sorted(sys.modules))"
    process = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
    )
    assert "'airflow_provider_cdm.tasks.attempt'" in process.stdout


#: What a DAG file imports that only has an asset watcher.
WATCHER_MODULES = {"client", "client.arguments", "client.errors", "client.text"} | {
    "triggers",
    "triggers.base",
    "triggers.run_event",
}


@pytest.mark.long
@pytest.mark.skipif(not HAS_ASSET_WATCHERS, reason="Airflow 2 has no AssetWatcher")
def test_parsing_a_watcher_imports_nothing_that_watches() -> None:
    """A DAG file with an asset watcher loads its arguments, and none of the other triggers."""
    script = """if True:
        import sys, json
        import airflow_provider_cdm._compat as compat
        before = set(sys.modules)
        from airflow_provider_cdm.triggers import CdmRunEventTrigger
        CdmRunEventTrigger(job_name="shop", statuses="SUCCEEDED").serialize()
        print(json.dumps(sorted(set(sys.modules) - before)))
    """
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    imported = json.loads(process.stdout.splitlines()[-1])
    ours = set(imported) - sys.stdlib_module_names - {"html.entities"}  # of the standard library
    modules = {name.removeprefix("airflow_provider_cdm.") for name in ours}
    assert modules - {"connection", "connection.fields"} == WATCHER_MODULES


def test_provider_discovery_loads_neither_airflow_nor_requests() -> None:
    """Provider discovery, which every Airflow process runs, loads neither Airflow nor requests."""
    script = (
        "import sys, airflow_provider_cdm as p; p.get_provider_info(); print(sorted(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "'requests'" not in process.stdout
    assert "'airflow'" not in process.stdout

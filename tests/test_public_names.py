"""The names that users may import: none is added, removed or broken by accident."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest

import airflow_provider_cdm
from airflow_provider_cdm import triggers
from airflow_provider_cdm._compat import HAS_ASSET_WATCHERS

PACKAGE = "airflow_provider_cdm"
#: Every public name by its module. Names are added or removed only with an entry in the changelog.
PUBLIC_NAMES = {
    "operators": [
        "CdmApplyJobOperator",
        "CdmApplyLinkOperator",
        "CdmCreateJobOperator",
        "CdmDeleteJobOperator",
        "CdmDeleteLinkOperator",
        "CdmRestartClusterOperator",
        "CdmRunJobOperator",
        "CdmStartClusterOperator",
        "CdmStartJobOperator",
        "CdmStopClusterOperator",
        "CdmStopJobOperator",
        "CdmUpdateJobOperator",
    ],
    "sensors": ["CdmClusterSensor", "CdmSubmissionSensor"],
    "triggers": [
        "CdmClusterTrigger",
        "CdmOwnedJobTrigger",
        "CdmRunEventTrigger",
        "CdmSubmissionSensorTrigger",
        "CdmSubmissionTrigger",
    ],
    "hooks": ["CdmHook"],
    "exceptions": [
        "CdmAlreadyExists",
        "CdmAlreadyRunning",
        "CdmAuthError",
        "CdmBadResponse",
        "CdmClusterUnusable",
        "CdmConfigError",
        "CdmError",
        "CdmInUse",
        "CdmJournalError",
        "CdmKilled",
        "CdmNotFound",
        "CdmNotRunning",
        "CdmOutcomeUnknown",
        "CdmRefused",
        "CdmStalled",
        "CdmStartUncertain",
        "CdmSubmissionFailed",
        "CdmThresholdMissed",
        "CdmThrottled",
        "CdmUnavailable",
        "CdmWaitTimeout",
    ],
    "retry_policy": ["CdmRetryPolicy"],
    "links": ["CdmRunLink"],
    "simulator": ["CdmSimulator", "Fault", "ManualClock"],
}
#: Arguments without defaults of each trigger.
TRIGGER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "CdmClusterTrigger": {"cluster_id": "c", "states": ["normal"]},
    "CdmOwnedJobTrigger": {"job_name": "j", "cluster_id": "c", "submission_id": 1},
    "CdmRunEventTrigger": {"job_name": "j"},
    "CdmSubmissionSensorTrigger": {"poke_interval": 60, "timeout": 600},
    "CdmSubmissionTrigger": {"job_name": "j", "cluster_id": "c", "submission_id": 1},
}


def all_packages() -> list[str]:
    """Return the names of all packages below the root of this package."""
    modules = pkgutil.walk_packages(airflow_provider_cdm.__path__, f"{PACKAGE}.")
    return [module.name for module in modules if module.ispkg]


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_module_exports_exactly_the_public_names(module: str) -> None:
    """``__all__`` of each public module has exactly the listed names."""
    exported = importlib.import_module(f"{PACKAGE}.{module}").__all__
    assert sorted(exported) == sorted(PUBLIC_NAMES[module])


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module, names in PUBLIC_NAMES.items() for name in names],
)
def test_public_name_can_be_imported(module: str, name: str) -> None:
    """Each public name is a class that can be imported from its public module."""
    assert isinstance(getattr(importlib.import_module(f"{PACKAGE}.{module}"), name), type)


def test_exceptions_exports_every_error_class() -> None:
    """Every error class of the client can be imported from ``exceptions``."""
    errors = importlib.import_module(f"{PACKAGE}.client.errors")
    error_classes = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.CdmError)
    ]
    assert sorted(error_classes) == PUBLIC_NAMES["exceptions"]


@pytest.mark.parametrize("package", all_packages())
def test_every_entry_of_all_exists(package: str) -> None:
    """Every package has an ``__all__``, and each entry is an attribute or a module of it."""
    namespace: dict[str, Any] = {}
    exec(f"from {package} import *", namespace)
    exported = importlib.import_module(package).__all__
    assert len(set(exported)) == len(exported)
    assert set(exported) <= set(namespace)


@pytest.mark.parametrize("name", triggers.__all__)
def test_trigger_serializes_under_its_public_path(name: str) -> None:
    """A trigger is serialized under a path that can be imported wherever the class is defined.

    Airflow stores this path in its metadata database.
    """
    if name == "CdmRunEventTrigger" and not HAS_ASSET_WATCHERS:
        pytest.skip("needs Airflow 3")
    trigger = getattr(triggers, name)(**TRIGGER_ARGUMENTS[name])
    path, _ = trigger.serialize()
    module, _, class_name = path.rpartition(".")
    assert module == f"{PACKAGE}.triggers"
    assert getattr(importlib.import_module(module), class_name) is type(trigger)

"""What follows from a job's configuration for its runs: the rows to move, and its deletion."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_cdm.date_macros import fill
from airflow_provider_cdm.simulator.config.behaviour import time_zone
from airflow_provider_cdm.simulator.config.job_config import JDBC, inputs_of
from airflow_provider_cdm.simulator.transfer.jdbc import Transfer

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.models import Link
    from airflow_provider_cdm.simulator.backend.run import Run
    from airflow_provider_cdm.simulator.config.behaviour import Behaviour
    from airflow_provider_cdm.simulator.config.job_config import JobConfig


def transfer_of(
    config: JobConfig,
    links: Mapping[str, Link],
    variables: Mapping[str, str],
    now: float,
    behaviour: Behaviour,
) -> Transfer | None:
    """Return the transfer of a run; ``None`` unless both links lead to databases.

    :param config: configuration of the job.
    :param links: links of the cluster by name.
    :param variables: values for the placeholders in the job's parameters.
    :param now: current time in seconds since 1970, for date macros.
    :param behaviour: switches for time zone and undefined variables.
    :raises MacroError: if a placeholder cannot be replaced.
    """
    wire = config.to_wire()
    urls = []
    for end in ("from", "to"):
        link = links.get(str(wire.get(f"{end}-link-name")))
        if wire.get(f"{end}-connector-name") != JDBC or link is None or link.url is None:
            return None
        urls.append(link.url)
    keep = behaviour.undefined_variable == "literal"
    at = datetime.fromtimestamp(now, time_zone(behaviour.timezone))
    inputs = {**inputs_of(wire, "from-config-values"), **inputs_of(wire, "to-config-values")}
    filled = {name: fill(text, variables, at, keep_undefined=keep) for name, text in inputs.items()}
    return Transfer(urls[0], urls[1], filled)


def extractors_of(config: JobConfig) -> int:
    """Return the number of extractors of a job.

    :param config: configuration of the job.
    """
    inputs = inputs_of(config.to_wire(), "driver-config-values")
    number = inputs.get("throttlingConfig.numExtractors") or ""
    return int(number) if number.isdecimal() else 1


def is_disposable(config: JobConfig) -> bool:
    """Return whether a job may be deleted after a run.

    :param config: configuration of the job.
    """
    return _disposable_type(config) != "NONE"


def is_deleted_after(config: JobConfig, run: Run) -> bool:
    """Return whether a job is deleted after a run.

    :param config: configuration of the job.
    :param run: run that has ended.
    """
    rule = _disposable_type(config)
    return rule == "DELETE" or (rule == "DELETE_AFTER_SUCCEED" and run.status == "SUCCEEDED")


def _disposable_type(config: JobConfig) -> str:
    inputs = inputs_of(config.to_wire(), "driver-config-values")
    return inputs.get("schedulerConfig.disposableType") or "NONE"

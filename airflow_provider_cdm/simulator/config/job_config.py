"""The configuration of a job, and the job object (JSON) that it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from airflow_provider_cdm.simulator.config.reader import read

JDBC = "generic-jdbc-connector"
#: Connector of a job without source and target in the configuration.
SCRIPTED = "hive-connector"


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Duration of each phase of a run, in seconds; a plain number is the running time."""

    pending: float = 0.0
    booting: float = 0.05
    running: float = 0.2

    @classmethod
    def coerce(cls, data: Any) -> Any:
        """Convert ``seconds: 3`` into ``seconds: {running: 3}``.

        :param data: value in the configuration.
        """
        number = isinstance(data, (int, float)) and not isinstance(data, bool)
        return {"running": data} if number else data


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of one run; a plain word is the outcome itself."""

    outcome: Literal["SUCCEEDED", "FAILED", "FAILURE_ON_SUBMIT"] = "SUCCEEDED"
    #: Counters of a successful run, by their name in the API, such as ``ROWS_READ``.
    counters: Mapping[str, int] = field(default_factory=dict)
    error_summary: str | None = None
    error_details: str | None = None

    @classmethod
    def coerce(cls, data: Any) -> Any:
        """Convert ``FAILED`` into ``{outcome: FAILED}``.

        :param data: value in the configuration.
        """
        return {"outcome": data} if isinstance(data, str) else data


@dataclass(frozen=True, kw_only=True)
class TableConfig(Outcome):
    """The end of the sub-job of one table; a plain word is the name of the table."""

    name: str

    @classmethod
    def coerce(cls, data: Any) -> Any:
        """Convert ``orders`` into ``{name: orders}``.

        :param data: value in the configuration.
        """
        return {"name": data} if isinstance(data, str) else data


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The source of a database job: a table, optionally with a condition, or a query.

    The table of a whole-database job is a pattern, such as ``*``, or several patterns that are
    separated by ``&``.
    """

    link: str
    table: str | None = None
    schema: str | None = None
    where: str | None = None
    sql: str | None = None
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.table is None) == (self.sql is None):
            raise ValueError("expected either table or sql")


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """The target of a database job; the table must exist.

    A whole-database job writes to tables with the names of the source tables and ignores
    ``table``.
    """

    link: str
    table: str
    schema: str | None = None
    columns: tuple[str, ...] = ()
    before_import: Literal["none", "shouldClearTable"] = "none"


@dataclass(frozen=True, kw_only=True)
class JobConfig(Outcome):
    """A job: its source and target (``from`` and ``to``, or a ``wire`` object), and its runs.

    Runs are scripted unless both links lead to databases. ``outcomes`` lists the ends of the first,
    second ... run; the last one repeats. ``statuses`` replaces the clock: each read of the run's
    status takes the next word, the last one repeats, and any word is allowed.

    A run of a ``BATCH_JOB`` moves the tables of a database, at most ``tables_at_once`` at a time,
    each of which takes ``seconds``. ``tables`` configures tables that do not simply succeed;
    without databases, it lists all tables.
    """

    name: str
    type: Literal["NORMAL_JOB", "BATCH_JOB", "SCENARIO_JOB"] = "NORMAL_JOB"
    from_: SourceConfig | None = None
    to: TargetConfig | None = None
    wire: Mapping[str, Any] | None = None
    user: str = "console"
    enabled: bool = True
    disposable: Literal["NONE", "DELETE_AFTER_SUCCEED", "DELETE"] = "NONE"
    seconds: Seconds | None = None
    outcomes: tuple[Outcome, ...] = ()
    statuses: tuple[str, ...] = ()
    tables: tuple[TableConfig, ...] = ()
    #: Maximum number of active sub-jobs; the default is that of an example in the user guide.
    tables_at_once: int = 3

    @classmethod
    def coerce(cls, data: Any) -> Any:
        """Convert a plain word into the name of a job.

        :param data: value in the configuration.
        """
        return {"name": data} if isinstance(data, str) else data

    def __post_init__(self) -> None:
        if (self.from_ is None) != (self.to is None):
            raise ValueError("expected both from and to, or neither")
        if self.from_ is not None and self.wire is not None:
            raise ValueError("expected either from and to, or wire")
        if self.tables and self.type != "BATCH_JOB":
            raise ValueError("only a BATCH_JOB can have tables")
        if self.tables_at_once < 1:
            raise ValueError("tables_at_once: expected 1 or more")

    def with_changes(self, changes: Mapping[str, Any]) -> JobConfig:
        """Return a copy of the job with other settings.

        New outcomes replace all old ones, and a new source or target replaces the ``wire`` object.

        :param changes: new values by configuration key.
        :raises ConfigError: if they are not valid.
        """
        changes = dict(changes)
        if "outcome" in changes or "outcomes" in changes:
            changes.setdefault("outcomes", ())
        if {"from", "to"} & changes.keys():
            changes.setdefault("wire", None)
        current = {item.name.rstrip("_"): getattr(self, item.name) for item in fields(self)}
        return read(JobConfig, {**current, **changes}, f"job {self.name}")

    def outcome_of(self, number: int) -> Outcome:
        """Return the outcome of a run.

        :param number: index of the run, 0 for the first run of the job.
        """
        return self.outcomes[min(number, len(self.outcomes) - 1)] if self.outcomes else self

    def to_wire(self) -> dict[str, Any]:
        """Return the job object that creates this job in the API."""
        if self.wire is not None:
            return {"job_type": self.type, **self.wire, "name": self.name}
        connector = SCRIPTED if self.from_ is None else JDBC
        disposable = {"schedulerConfig.disposableType": self.disposable}
        return {
            "job_type": self.type,
            "name": self.name,
            "from-connector-name": connector,
            "from-link-name": self.from_.link if self.from_ else "source",
            "from-config-values": _block("fromJobConfig", _source_inputs(self.from_)),
            "to-connector-name": connector,
            "to-link-name": self.to.link if self.to else "target",
            "to-config-values": _block("toJobConfig", _target_inputs(self.to)),
            "driver-config-values": _block("schedulerConfig", disposable),
        }


def inputs_in(block: object) -> Iterator[dict[str, Any]]:
    """Yield the inputs in a block of configurations; malformed parts are skipped.

    :param block: value of a key such as ``from-config-values``.
    """
    configs = block.get("configs") if isinstance(block, dict) else None
    for config in configs if isinstance(configs, list) else []:
        inputs = config.get("inputs") if isinstance(config, dict) else None
        # Some samples have an empty object instead of the list.
        for item in inputs if isinstance(inputs, list) else []:
            if isinstance(item, dict):
                yield item


def inputs_of(job: Mapping[str, Any], block: str) -> dict[str, str]:
    """Return the values of the inputs in one block of a job as text, by their full name.

    :param job: job object (JSON).
    :param block: ``from-config-values``, ``to-config-values`` or ``driver-config-values``.
    """
    values = {str(item.get("name")): item.get("value") for item in inputs_in(job.get(block))}
    return {name: "" if value in (None, [], {}) else str(value) for name, value in values.items()}


def with_inputs(block: object, values: Mapping[str, str]) -> dict[str, Any]:
    """Return a copy of a block of configurations with other values for some inputs.

    :param block: value of a key such as ``from-config-values``.
    :param values: new values by the full name of the input.
    """
    current = inputs_of({"block": block}, "block")
    return _block(next(iter(values)).partition(".")[0], {**current, **values})


def _source_inputs(source: SourceConfig | None) -> dict[str, str]:
    if source is None:
        return {}
    return {
        "fromJobConfig.useSql": "false" if source.sql is None else "true",
        "fromJobConfig.sql": source.sql or "",
        "fromJobConfig.schemaName": source.schema or "",
        "fromJobConfig.tableName": source.table or "",
        "fromJobConfig.whereClause": source.where or "",
        "fromJobConfig.columnList": "&".join(source.columns),
    }


def _target_inputs(target: TargetConfig | None) -> dict[str, str]:
    if target is None:
        return {}
    return {
        "toJobConfig.schemaName": target.schema or "",
        "toJobConfig.tableName": target.table,
        "toJobConfig.columnList": "&".join(target.columns),
        "toJobConfig.beforeImportType": target.before_import,
    }


def _block(name: str, inputs: Mapping[str, str]) -> dict[str, Any]:
    items = [{"name": key, "value": value} for key, value in inputs.items() if value]
    return {"configs": [{"name": name, "inputs": items}]}

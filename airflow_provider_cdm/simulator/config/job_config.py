"""A job as a configuration describes it, and the wire JSON it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

JDBC = "generic-jdbc-connector"
#: Connector shown for a job of which only the runs are described.
SCRIPTED = "hive-connector"


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """How long a run stays in each phase; a plain number is the running time."""

    pending: float = 0.0
    booting: float = 0.05
    running: float = 0.2

    @classmethod
    def coerce(cls, data: Any) -> Any:
        """Turn ``seconds: 3`` into ``seconds: {running: 3}``.

        :param data: what was given.
        """
        number = isinstance(data, (int, float)) and not isinstance(data, bool)
        return {"running": data} if number else data


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one run ends; a plain word is the outcome itself."""

    outcome: Literal["SUCCEEDED", "FAILED", "FAILURE_ON_SUBMIT"] = "SUCCEEDED"
    #: Added to the counters of a success; names as on the wire, such as ``ROWS_READ``.
    counters: Mapping[str, int] = field(default_factory=dict)
    error_summary: str | None = None
    error_details: str | None = None

    @classmethod
    def coerce(cls, data: Any) -> Any:
        """Turn ``FAILED`` into ``{outcome: FAILED}``.

        :param data: what was given.
        """
        return {"outcome": data} if isinstance(data, str) else data


@dataclass(frozen=True, kw_only=True)
class TableConfig(Outcome):
    """How the sub-job of one table ends; a plain word is the name of the table."""

    name: str

    @classmethod
    def coerce(cls, data: Any) -> Any:
        """Turn ``orders`` into ``{name: orders}``.

        :param data: what was given.
        """
        return {"name": data} if isinstance(data, str) else data


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """What a database job reads: a table, perhaps with a condition, or a query.

    The table of a whole-database job is a pattern, such as ``*``, or several with ``&`` between
    them.
    """

    link: str
    table: str | None = None
    schema: str | None = None
    where: str | None = None
    sql: str | None = None
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.table is None) == (self.sql is None):
            raise ValueError("give either table or sql")


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """Where a database job writes; the table must exist.

    A whole-database job writes to tables of the source's names, whatever ``table`` is.
    """

    link: str
    table: str
    schema: str | None = None
    columns: tuple[str, ...] = ()
    before_import: Literal["none", "shouldClearTable"] = "none"


@dataclass(frozen=True, kw_only=True)
class JobConfig(Outcome):
    """A job: what it moves (``from`` and ``to``, or a whole ``wire`` object) and how its runs go.

    Without links that lead to databases the runs are scripted. ``outcomes`` lists how the first,
    second ... run ends, the last one repeats. ``statuses`` replaces time: each read of a run's
    status takes the next word, the last one stays, and any word is allowed.

    A run of a ``BATCH_JOB`` moves the tables of a database, ``tables_at_once`` at a time, and
    ``seconds`` is the time that each of them takes. ``tables`` says how those end that shall not
    simply succeed; without databases, it says which there are.
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
    #: As in the user guide's example.
    tables_at_once: int = 3

    @classmethod
    def coerce(cls, data: Any) -> Any:
        """Turn a plain word into the name of a job.

        :param data: what was given.
        """
        return {"name": data} if isinstance(data, str) else data

    def __post_init__(self) -> None:
        if (self.from_ is None) != (self.to is None):
            raise ValueError("from and to belong together")
        if self.from_ is not None and self.wire is not None:
            raise ValueError("give either from and to, or wire")
        if self.tables and self.type != "BATCH_JOB":
            raise ValueError("only a BATCH_JOB has tables")
        if self.tables_at_once < 1:
            raise ValueError("tables_at_once: at least 1")

    def outcome_of(self, number: int) -> Outcome:
        """Return how a run ends.

        :param number: 0 for the first run of the job.
        """
        return self.outcomes[min(number, len(self.outcomes) - 1)] if self.outcomes else self

    def to_wire(self) -> dict[str, Any]:
        """Return the job object that *create job* would have been sent."""
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
    """Yield the inputs in a block of configurations; what is malformed is passed over.

    :param block: such as a job's ``from-config-values``.
    """
    configs = block.get("configs") if isinstance(block, dict) else None
    for config in configs if isinstance(configs, list) else []:
        inputs = config.get("inputs") if isinstance(config, dict) else None
        # Some samples have an empty object where the list belongs.
        for each in inputs if isinstance(inputs, list) else []:
            if isinstance(each, dict):
                yield each


def inputs_of(job: Mapping[str, Any], block: str) -> dict[str, str]:
    """Return the inputs of one block of a job as full name to value.

    :param job: wire JSON of a job.
    :param block: ``from-config-values``, ``to-config-values`` or ``driver-config-values``.
    """
    found = {str(each.get("name")): each.get("value") for each in inputs_in(job.get(block))}
    return {name: "" if value is None else str(value) for name, value in found.items()}


def with_inputs(block: object, values: Mapping[str, str]) -> dict[str, Any]:
    """Return a copy of a block of configurations in which some inputs have these values.

    :param block: such as a job's ``from-config-values``.
    :param values: by full name.
    """
    given = inputs_of({"block": block}, "block")
    return _block(next(iter(values)).partition(".")[0], {**given, **values})


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
    given = [{"name": key, "value": value} for key, value in inputs.items() if value]
    return {"configs": [{"name": name, "inputs": given}]}

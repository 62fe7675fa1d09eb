"""What a sensor may be given that begins in the triggerer; all else is refused in the DAG file.

The triggerer can render fewer templates than a worker, and some that it cannot render would let the
task wait for ever: its parent process does not answer what it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_cdm._compat import (
    STARTS_FROM_TRIGGER,
    airflow_version,
    is_from_mapped,
    is_in_mapped_group,
    is_reference,
    start_trigger_args,
)
from airflow_provider_cdm.client.errors import CdmConfigError
from airflow_provider_cdm.sensors import trigger_templates
from airflow_provider_cdm.sensors.mapped_start import ON_A_WORKER, refuse_mapping

if TYPE_CHECKING:
    from airflow_provider_cdm.sensors.base import CdmSensor

#: What is plain, or has a plain text that means the same.
_PLAIN = (int, float, Decimal, date, datetime, timedelta)


def check_place(sensor: CdmSensor, given: Any, kwargs: Mapping[str, Any]) -> None:
    """Check whether a sensor can begin in the triggerer at all.

    :param sensor: the sensor, whose construction has just begun.
    :param given: value of ``start_from_trigger``.
    :param kwargs: other arguments of the sensor.
    :raises CdmConfigError: when it cannot.
    """
    if given is not True:
        raise CdmConfigError(f"start_from_trigger must be True or False, not {given!r}.")
    if not STARTS_FROM_TRIGGER:
        raise CdmConfigError(
            "start_from_trigger=True needs Airflow 3.3 or later, which renders the arguments in the"
            f" triggerer; this is Airflow {airflow_version}. {ON_A_WORKER}"
        )
    if is_from_mapped(sensor):
        refuse_mapping()
    if kwargs.get("deferrable") is False:
        raise CdmConfigError(
            "start_from_trigger=True and deferrable=False contradict each other: the sensor begins"
            " and waits in the triggerer. Leave deferrable out, or set start_from_trigger=False."
        )
    if "mode" in kwargs:
        _refuse_mode()


def arguments_of(sensor: CdmSensor, fields: Sequence[str], options: Mapping[str, bool]) -> Any:
    """Return what Airflow needs to begin a sensor in the triggerer.

    :param fields: names of the arguments with templates that the trigger takes.
    :param options: its other arguments that are those of the sensor.
    :raises CdmConfigError: when the triggerer cannot begin it; names all arguments it cannot use.
    """
    if sensor.mode != "poke":
        _refuse_mode()
    if is_in_mapped_group(sensor):
        refuse_mapping()
    given = {**{name: getattr(sensor, name) for name in sensor.template_fields}, **options}
    leaves = [leaf for name, value in given.items() for leaf in _leaves(name, value)]
    problems = [problem for name, value in leaves if (problem := _problem_of(name, value))]
    problems += _param_problems(sensor)
    if getattr(sensor.get_dag(), "jinja_environment_kwargs", None) and any(
        isinstance(value, str) and trigger_templates.is_template(value) for _, value in leaves
    ):
        problems.append("the DAG has jinja_environment_kwargs, which the triggerer does not know")
    if problems:
        raise CdmConfigError(
            f"start_from_trigger=True cannot be used here: {'; '.join(problems)}. Name the run with"
            " job_name and submission_id or started_after, as plain values or as templates such as"
            f" '{{{{ data_interval_end }}}}'. {ON_A_WORKER}"
        )
    whole, (limit, _) = sensor.execution_timeout, sensor.wait_limit(None, "timeout")
    arguments = {
        **{name: _plain(getattr(sensor, name)) for name in fields},
        **options,
        "execution_timeout": None if whole is None else whole.total_seconds(),
        "execution_limit": limit,
        "exponential_backoff": sensor.exponential_backoff,
    }
    return start_trigger_args("CdmSubmissionSensorTrigger", arguments, "execute_complete")


def _refuse_mode() -> NoReturn:
    raise CdmConfigError(
        "start_from_trigger=True and mode contradict each other: mode says how a sensor waits on a"
        " worker. Leave mode out, or set start_from_trigger=False."
    )


def _param_problems(sensor: CdmSensor) -> Iterator[str]:
    """Yield which parameters of the task may be invalid when it begins.

    Airflow checks those of the DAG when it makes a DAG run. Those of the task it checks in the
    triggerer, which an invalid value would end, with all that waits there.
    """
    of_dag: Any = getattr(sensor.get_dag(), "params", {})
    params: Any = sensor.params
    for name, param in params.items():
        if _may_be_invalid(param, of_dag.get_param(name) if name in of_dag else None):
            yield (
                f"the task's parameter {name!r} may be invalid, which would end the triggerer (give"
                " it to the DAG, where Airflow checks it earlier)"
            )


def _may_be_invalid(param: Any, of_dag: Any) -> bool:
    if of_dag is not None and of_dag.schema == param.schema:
        # What has no value yet gets it from the DAG run.
        return _is_invalid(param) and not _is_invalid(of_dag)
    # A DAG run may replace the value.
    return bool(param.schema) or _is_invalid(param)


def _is_invalid(param: Any) -> bool:
    try:
        param.resolve()
    except Exception:
        return True
    return False


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and value of an argument, or of each part of one that has parts."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(f"{name}[{key!r}]", part)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _leaves(f"{name}[{index}]", part)
    else:
        yield name, value


def _problem_of(name: str, value: Any) -> str | None:
    """Return why the triggerer cannot use an argument, or a part of one."""
    if isinstance(value, str):
        if name == "submission":
            return "submission is a text, and a template of it renders to text"
        problem = trigger_templates.problem_of(value)
        return problem and f"{name} ({value[:200]}) {problem}"
    if is_reference(value):
        return f"{name} is the output of another task, which the triggerer cannot read"
    if callable(value):
        return f"{name} is a function, which the triggerer cannot call"
    if value is None or isinstance(value, _PLAIN):
        return None
    return f"{name} is a {type(value).__name__}, which cannot be passed to the triggerer"


def _plain(value: Any) -> Any:
    """Return an argument as plain JSON that means the same."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value

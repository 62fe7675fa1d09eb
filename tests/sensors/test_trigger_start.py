"""``CdmSubmissionSensor(start_from_trigger=True)``: what it refuses, and how it begins."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm._compat import (
    STARTS_FROM_TRIGGER,
    AirflowSensorTimeout,
    AirflowSkipException,
)
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.retry_policy import CdmRetryPolicy
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.triggers import CdmSubmissionSensorTrigger, CdmSubmissionTrigger
from airflow_provider_cdm.triggers.event import SubmissionEvent
from tests.support.task_harness import TaskRunner

JOB = "orders"
needs_airflow = pytest.mark.skipif(not STARTS_FROM_TRIGGER, reason="needs Airflow 3.3")


def make_sensor(**arguments: Any) -> CdmSubmissionSensor:
    """Make a sensor that begins in the triggerer."""
    defaults = {"task_id": "t", "job_name": JOB, "poke_interval": 30, "start_from_trigger": True}
    return CdmSubmissionSensor(**{**defaults, **arguments})


def in_dag(make: Callable[[], Any], **options: Any) -> Any:
    """Call a function within a DAG."""
    with DAG("a_dag", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC), **options):
        return make()


def output() -> Any:
    """Return the output of another task."""
    return CdmStartJobOperator(task_id="start", job_name=JOB).output


# What is refused when the DAG file is parsed


@pytest.mark.skipif(STARTS_FROM_TRIGGER, reason="this Airflow can do it")
def test_older_airflow_is_refused() -> None:
    """Airflow below 3.3 does not render the arguments there, so the sensor says what to do."""
    with pytest.raises(errors.CdmConfigError, match=r"needs Airflow 3\.3 or later") as raised:
        make_sensor(submission_id=1)
    assert "start_from_trigger=False and deferrable=True" in str(raised.value)


@pytest.mark.parametrize("given", [False, None])
def test_it_is_off_by_default(given: Any) -> None:
    """Without the argument nothing changes, in any Airflow."""
    sensors = [
        CdmSubmissionSensor(task_id="t", job_name=JOB),
        make_sensor(start_from_trigger=given),
    ]
    assert [(each.start_from_trigger, each.start_trigger_args) for each in sensors] == [
        (False, None)
    ] * 2


@needs_airflow
@pytest.mark.parametrize("value", ["yes", 1, "{{ params.there }}"])
def test_value_that_is_neither_true_nor_false(value: Any) -> None:
    """Only ``True`` and ``False`` are meant."""
    with pytest.raises(errors.CdmConfigError, match="must be True or False"):
        make_sensor(start_from_trigger=value, submission_id=1)


@needs_airflow
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"deferrable": False}, "deferrable=False contradict each other"),
        ({"mode": "reschedule"}, "mode contradict each other"),
        ({"mode": "poke"}, "mode contradict each other"),
        ({"default_args": {"mode": "reschedule"}}, "mode contradict each other"),
    ],
    ids=str,
)
def test_contradiction_is_refused(arguments: dict[str, Any], reason: str) -> None:
    """What says that the sensor waits on a worker is refused."""
    with pytest.raises(errors.CdmConfigError, match=reason):
        make_sensor(submission_id=1, **arguments)


@needs_airflow
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: {"submission": output()}, ["submission"]),
        (lambda: {"submission": {"job_name": JOB, "submission_id": output()["x"]}}, ["submission"]),
        (lambda: {"submission_id": output()["submission_id"]}, ["submission_id"]),
        (
            lambda: {"timeout": (start := output()), "cluster_id": start["c"]},
            ["timeout", "cluster_id"],
        ),
        (lambda: {"min_rows_written": output()}, ["min_rows_written"]),
        (lambda: {"partition_key": output()}, ["partition_key"]),
        (lambda: {"fail_when_stalled": output()}, ["fail_when_stalled"]),
    ],
    ids=["submission", "part", "id", "two", "threshold", "partition", "flag"],
)
def test_output_of_another_task_is_refused(
    make: Callable[[], dict[str, Any]], names: list[str]
) -> None:
    """The triggerer gets such a value unresolved; the error names each argument, and what to do."""
    with pytest.raises(errors.CdmConfigError, match="is the output of another task") as raised:
        in_dag(lambda: make_sensor(**make()))
    for name in names:
        assert name in str(raised.value)
    assert "job_name and submission_id or started_after" in str(raised.value)


@needs_airflow
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ ti.xcom_pull(task_ids='start')['submission_id'] }}", "without map_indexes"),
        ("{{ ti.xcom_pull('start', map_indexes=None) }}", "without map_indexes"),
        ("{{ task_instance.xcom_pull(task_ids='start', key='a') }}", "without map_indexes"),
        ("{{ ti.xcom_pull('start', **{'map_indexes': -1}) }}", "without map_indexes"),
        ("{% if ti.xcom_pull('a') %}1{% else %}2{% endif %}", "without map_indexes"),
        ("{{ [ti.xcom_pull('a', map_indexes=-1), ti.xcom_pull('a')] }}", "without map_indexes"),
        ("{{ ti.xcom_pull(map_indexes=-1) }}", "without task_ids"),
        ("{% set t = ti %}{{ t.xcom_pull('a') }}", "uses ti as a whole"),
        ("{{ ti['xcom_pull']('a') }}", "uses ti as a whole"),
        ("{{ (ti | attr('xcom_pull'))('a') }}", "uses ti as a whole"),
        ("{{ ti.xcom_pull }}", r"uses ti\.xcom_pull"),
        ("{{ ti.get_previous_dagrun() }}", r"uses ti\.get_previous_dagrun"),
        ("{{ ti.start_date }}", r"uses ti\.start_date"),
        ("{{ task.retries }}", r"uses task\.retries"),
        ("{{ dag.ti.xcom_pull('a') }}", r"uses dag\.ti"),
        ("{{ prev_start_date_success }}", "uses prev_start_date_success"),
        ("{{ prev_data_interval_end_success }}", "uses prev_data_interval_end_success"),
        ("{{ inlet_events }}", "uses inlet_events"),
        ("{{ task_state_store.get('a') }}", "uses task_state_store"),
        ("{{ my_macro(ds) }}", "uses my_macro"),
        ("{{ self._TemplateReference__context }}", "uses"),
        ("{{ ds | my_filter }}", "No filter named 'my_filter'"),
        ("{{ ds", "cannot be rendered"),
        ("{% include 'a.txt' %}", "reads another file"),
        ("{% extends 'a.txt' %}", "reads another file"),
    ],
)
@pytest.mark.parametrize("place", ["submission_id", "submission"])
def test_template_that_the_triggerer_cannot_render_is_refused(
    place: str, text: str, reason: str
) -> None:
    """Airflow's triggerer never answers some look-ups, and lacks what the DAG adds to templates."""
    value = {"job_name": JOB, "submission_id": text} if place == "submission" else text
    with pytest.raises(errors.CdmConfigError, match=reason) as raised:
        make_sensor(**{place: value})
    assert f"{place}" in str(raised.value)
    assert "it begins on a worker" in str(raised.value)


@needs_airflow
@pytest.mark.parametrize(
    "text",
    [
        "{{ data_interval_end }}",
        "{{ ti.xcom_pull(task_ids='start', map_indexes=-1)['submission_id'] }}",
        "{{ ti.xcom_pull('start', key='x', map_indexes=[0, 1]) }}",
        "{{ macros.ds_add(ds, 1) }}T{{ params.hour }}",
        "{% set day = logical_date | ds_nodash %}{{ day }}",
        "{{ var.value.day }}{{ conn.other.host }}{{ dag.dag_id }}{{ task.task_id }}",
        "no template",
    ],
)
def test_template_that_the_triggerer_can_render(text: str) -> None:
    """What was seen to work in a triggerer is allowed; ``tests/system`` renders all of it there."""
    assert make_sensor(job_name=text, submission_id=1).start_trigger_args is not None


@needs_airflow
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"submission": "{{ ti.xcom_pull('start', map_indexes=-1) }}"}, "submission is a text"),
        ({"submission_id": lambda **_: 1}, "submission_id is a function"),
        ({"job_name": Path("orders")}, "job_name is a PosixPath"),
        ({"poke_interval": lambda **_: 1}, "poke_interval is a function"),
    ],
    ids=["text", "function", "path", "duration"],
)
def test_value_that_cannot_be_passed_is_refused(arguments: dict[str, Any], reason: str) -> None:
    """The triggerer gets plain values only."""
    with pytest.raises(errors.CdmConfigError, match=reason):
        make_sensor(**{"submission_id": 1, **arguments})


@needs_airflow
def test_delimiters_of_the_dag_are_refused() -> None:
    """The triggerer would send templates with other delimiters as they are."""
    options = {"jinja_environment_kwargs": {"variable_start_string": "[["}}
    with pytest.raises(errors.CdmConfigError, match="jinja_environment_kwargs"):
        in_dag(lambda: make_sensor(started_after="{{ ds }}"), **options)
    assert in_dag(lambda: make_sensor(submission_id=1), **options).start_trigger_args


@needs_airflow
@pytest.mark.parametrize(
    ("of_task", "is_refused"),
    [
        ({"day": {"type": "string"}}, True),
        ({"day": {}}, True),
        ({"day": 5}, False),
        ({"number": 5}, False),
        ({}, False),
    ],
    ids=str,
)
def test_parameter_that_may_be_invalid_is_refused(
    of_task: dict[str, Any], is_refused: bool
) -> None:
    """An invalid parameter of a task would end the triggerer; those of a DAG are checked before."""
    param: Any = importlib.import_module("airflow.sdk").Param
    given = {
        name: param(**value) if isinstance(value, dict) else value
        for name, value in of_task.items()
    }
    options = {"params": {"number": param(1, type="integer")}}

    def make() -> Any:
        return make_sensor(submission_id=1, params=given)

    if not is_refused:
        assert in_dag(make, **options).start_trigger_args
        return
    with pytest.raises(errors.CdmConfigError, match="parameter 'day' may be invalid"):
        in_dag(make, **options)


def map_over_runs(**arguments: Any) -> Any:
    """Map a sensor over two runs."""
    partial = CdmSubmissionSensor.partial(**{"task_id": "t", "job_name": JOB, **arguments})
    return partial.expand(submission_id=[1, 2])


def map_over_argument() -> Any:
    """Map a sensor over the argument itself."""
    partial = CdmSubmissionSensor.partial(task_id="t", job_name=JOB, submission_id=1)
    return partial.expand(start_from_trigger=[True, False])


def map_over_kwargs() -> Any:
    """Map a sensor over arguments with this one."""
    partial = CdmSubmissionSensor.partial(task_id="t", job_name=JOB)
    return partial.expand_kwargs([{"submission_id": 1, "start_from_trigger": True}])


def map_group() -> Any:
    """Put a sensor into a task group that is mapped."""
    task_group: Any = importlib.import_module("airflow.sdk").task_group

    def each(x: int) -> None:
        make_sensor(submission_id=1)

    return task_group(each).expand(x=[1, 2])


MAPPINGS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "partial": (lambda: map_over_runs(start_from_trigger=True), {}),
    "expand": (map_over_argument, {}),
    "expand_kwargs": (map_over_kwargs, {}),
    "default_args": (lambda: map_over_runs(default_args={"start_from_trigger": True}), {}),
    "of the DAG": (map_over_runs, {"default_args": {"start_from_trigger": True}}),
    "group": (map_group, {}),
}


@needs_airflow
@pytest.mark.filterwarnings("ignore:.*was never mapped")
@pytest.mark.parametrize("how", MAPPINGS)
def test_mapped_task_is_refused(how: str) -> None:
    """Airflow starts mapped instances there without arguments, however the argument is given."""
    make, options = MAPPINGS[how]
    with pytest.raises(errors.CdmConfigError, match="cannot be used with a mapped task"):
        in_dag(make, **options)


@needs_airflow
def test_mapped_instance_fails_without_a_retry() -> None:
    """What only the outputs of other tasks say is refused when the instance is made."""
    with pytest.raises(errors.CdmConfigError, match="mapped task") as raised:
        make_sensor(submission_id=1, _airflow_from_mapped=True)
    assert CdmRetryPolicy().is_final(raised.value)


@pytest.mark.parametrize("mapped", [{"submission_id": [1, 2]}, {"started_after": [1, 2]}])
def test_other_mapped_sensors_are_as_before(mapped: dict[str, Any]) -> None:
    """Sensors that begin on a worker can be mapped."""
    partial = CdmSubmissionSensor.partial(task_id="t", job_name=JOB, start_from_trigger=False)
    assert in_dag(lambda: partial.expand(**mapped)).task_id == "t"


# How it begins


@needs_airflow
def test_trigger_takes_all_arguments_with_templates() -> None:
    """The trigger has each templated argument of the sensor, and can be stored and restored."""
    assert set(CdmSubmissionSensorTrigger.templates) == set(CdmSubmissionSensor.template_fields)
    start: Any = make_sensor(
        submission_id=1, execution_timeout=timedelta(hours=1)
    ).start_trigger_args
    trigger = CdmSubmissionSensorTrigger(**start.trigger_kwargs)
    path, arguments = trigger.serialize()
    assert (path, arguments) == (start.trigger_cls, start.trigger_kwargs)
    assert arguments["execution_limit"] == 3600 - 15


@needs_airflow
@pytest.mark.parametrize(
    "arguments",
    [
        {"submission_id": "{{ number }}"},
        {"submission_id": "2"},
        {"started_after": "{{ since }}"},
        {
            "submission": {"job_name": "{{ job }}", "submission_id": "{{ number }}"},
            "job_name": None,
        },
        {"submission": {"job_name": JOB, "creation_date": "{{ created }}"}},
        {"started_after": "{{ since }}", "timeout": "{{ 10 * 60 }}", "poke_interval": "{{ 30 }}"},
        {
            "started_after": "{{ since }}",
            "stalled_after": "{{ 900 }}",
            "min_rows_written": "{{ 0 }}",
        },
        {"started_after": date(2025, 1, 3)},
        {"started_after": datetime(2025, 1, 3, tzinfo=UTC)},
    ],
    ids=str,
)
def test_it_waits_for_the_run_that_is_named(
    arguments: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trigger renders the arguments, and waits for exactly this run."""
    from airflow_provider_cdm.sensors import trigger_templates

    names = trigger_templates._VARIABLES | {"number", "since", "job", "created"}
    monkeypatch.setattr(trigger_templates, "_VARIABLES", names)
    sim.add_job(JOB, seconds=90)
    clock.advance(datetime(2025, 1, 2, 12, tzinfo=UTC).timestamp() - clock.now())
    sim.start(JOB)
    clock.advance(86_400)
    run = sim.start(JOB)
    created = int(sim.runs(JOB)[-1].created * 1000)
    since = datetime.fromtimestamp(clock.now(), UTC)
    task_runner.context |= {"number": 2, "since": since, "job": JOB, "created": created}
    result = task_runner.run(lambda: make_sensor(**arguments))
    assert (result["submission_id"], result["status"]) == (run.submission_id, "SUCCEEDED")
    assert task_runner.trigger_paths == ["airflow_provider_cdm.triggers.CdmSubmissionSensorTrigger"]


ERRORS: dict[str, tuple[dict[str, Any], type[errors.CdmError], str]] = {
    "no connection": ({"cdm_conn_id": "no_such"}, errors.CdmConfigError, "no connection 'no_such'"),
    "nothing": (
        {"submission_id": "{{ params.x }}"},
        errors.CdmConfigError,
        "nothing.*submission_id",
    ),
    "nothing in a mapping": (
        {"submission": {"job_name": "{{ params.x }}"}, "submission_id": None},
        *(errors.CdmConfigError, r"nothing.*submission\['job_name'\]"),
    ),
    "no cluster": ({"cluster_id": "{{ '' }}"}, errors.CdmConfigError, "cluster_id was given"),
    "undefined": (
        {"job_name": "{{ params.a.b }}"},
        errors.CdmConfigError,
        "job_name cannot be ren",
    ),
    "no run": ({"submission_id": None}, errors.CdmConfigError, "Name the run"),
    "two runs": ({"started_after": 0}, errors.CdmConfigError, "Name the run"),
    "no number": ({"submission_id": "{{ 'abc' }}"}, errors.CdmConfigError, "must be an integer"),
    "no instant": (
        {"started_after": "{{ 'yesterday' }}", "submission_id": None},
        *(errors.CdmConfigError, "started_after is 'yesterday'"),
    ),
    "no duration": ({"timeout": "{{ 'soon' }}"}, errors.CdmConfigError, "timeout must be a finite"),
    "no interval": ({"poke_interval": "{{ '' }}"}, errors.CdmConfigError, "poke_interval must be"),
    "no threshold": (
        {"min_rows_written": "{{ 'many' }}"},
        *(errors.CdmConfigError, "min_rows_written must be an integer"),
    ),
    "no partition": ({"partition_key": "{{ '' }}"}, errors.CdmConfigError, "partition_key was"),
    "not a flag": (
        {"rows_written_equal_read": 1},
        *(errors.CdmConfigError, "rows_written_equal_read must be True or False"),
    ),
    "no such job": ({"job_name": "other"}, errors.CdmOutcomeUnknown, "no longer exists"),
}


@needs_airflow
@pytest.mark.parametrize("error", ERRORS)
def test_error_in_the_triggerer_reaches_the_task(
    error: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """It is the error that the sensor raises on a worker, with the same decision about retries."""
    arguments, expected, text = ERRORS[error]
    sim.add_job(JOB, seconds=60)
    sim.start(JOB)
    task_runner.context["params"] = {"x": None}
    raised = {}
    for mode in ("triggerer", "worker"):
        runner = task_runner if mode == "triggerer" else task_runner.another_task()
        runner.context["params"] = {"x": None}
        given = {"submission_id": 1, **arguments, "start_from_trigger": mode == "triggerer"}

        def make(given: dict[str, Any] = given) -> Any:
            sensor = make_sensor(**{"deferrable": True, **given})
            if not sensor.start_from_trigger:
                sensor.render_template_fields({"params": {"x": None}})
            return sensor

        with pytest.raises(expected, match=text) as found:
            runner.run(make)
        raised[mode] = found.value
    assert raised["triggerer"].final == raised["worker"].final
    assert type(raised["triggerer"]).__name__ == type(raised["worker"]).__name__
    (payload,) = task_runner.events
    with pytest.raises(expected, match=text):
        SubmissionEvent.unwrap(payload)
    if expected is errors.CdmConfigError:
        assert [request.route for request in sim.requests] == []


@needs_airflow
@pytest.mark.parametrize(
    ("limits", "seconds", "expected"),
    [
        ({"timeout": 600}, 600, AirflowSensorTimeout),
        ({"timeout": "{{ 600 }}"}, 600, AirflowSensorTimeout),
        ({"timeout": timedelta(minutes=10)}, 600, AirflowSensorTimeout),
        ({"execution_timeout": timedelta(minutes=10)}, 585, errors.CdmWaitTimeout),
        ({"execution_timeout": timedelta(minutes=1)}, 54, errors.CdmWaitTimeout),
        ({"execution_timeout": timedelta(hours=1), "timeout": 600}, 600, AirflowSensorTimeout),
    ],
    ids=str,
)
@pytest.mark.parametrize("delay", [0, 40])
def test_limits_count_from_the_beginning_of_the_attempt(
    delay: float,
    limits: dict[str, Any],
    seconds: float,
    expected: type[Exception],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """They do so however late a triggerer takes the task up, and end before Airflow's own limit."""
    sim.add_job(JOB, seconds=10**6)
    sim.start(JOB)
    task_runner.triggerer_delay = delay
    began = clock.now()
    with pytest.raises(expected):
        task_runner.run(lambda: make_sensor(submission_id=1, **limits))
    assert seconds <= clock.now() - began < seconds + 15


@needs_airflow
@pytest.mark.parametrize(
    ("flags", "limit", "expected"),
    [
        ({}, {}, AirflowSensorTimeout),
        ({"soft_fail": True}, {}, AirflowSkipException),
        ({}, {"execution_timeout": timedelta(minutes=5)}, errors.CdmWaitTimeout),
        ({"never_fail": True}, {"execution_timeout": timedelta(minutes=5)}, AirflowSkipException),
        ({"silent_fail": True}, {}, AirflowSensorTimeout),
    ],
    ids=str,
)
def test_time_out_by_airflow_itself(
    flags: dict[str, Any], limit: dict[str, Any], expected: type[Exception], task_runner: TaskRunner
) -> None:
    """Without a triggerer, Airflow ends the wait at its own limit, which means the same."""
    sensor = make_sensor(submission_id=1, **flags, **limit)
    context: Any = {"ti": task_runner.ti, "task": sensor}
    with pytest.raises(expected):
        sensor.resume_execution("__fail__", {"error": "Trigger timeout"}, context)


@needs_airflow
def test_arguments_are_rendered_once(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """What a template rendered to is no template, also for the trigger after a stall."""
    told: list[Any] = []
    sim.add_job("odd {{", statuses=[*["RUNNING"] * 60, "SUCCEEDED"])
    sim.start("odd {{")
    result = task_runner.run(
        lambda: make_sensor(
            job_name="odd {{ '{{' }}", submission_id=1, stalled_after=600, on_stalled=told.append
        )
    )
    assert result["status"] == "SUCCEEDED"
    assert len(told) == 1
    assert [path.rpartition(".")[2] for path in task_runner.trigger_paths] == [
        "CdmSubmissionSensorTrigger",
        "CdmSubmissionTrigger",
    ]
    assert task_runner.deferrals[1]["job_name"] == "odd {{"
    assert task_runner.deferrals[1]["deadline"] is not None


class Supervisor:
    """The parent process of a task or a trigger, which writes and deletes XComs."""

    def __init__(self) -> None:
        self.written: dict[str, Any] = {}
        self.deleted: list[str] = []

    def send(self, message: Any) -> Any:
        """Answer a message."""
        comms = importlib.import_module("airflow.sdk.execution_time.comms")
        if isinstance(message, comms.SetXCom):
            self.written[message.key] = message.value
        elif isinstance(message, comms.DeleteXCom):
            self.deleted.append(message.key)
        return comms.XComResult(key=getattr(message, "key", ""), value=None)


@pytest.fixture
def xcom_supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """Replace the supervisor of this process."""
    module = importlib.import_module("airflow.sdk.execution_time.task_runner")
    fake = Supervisor()
    monkeypatch.setattr(module, "SUPERVISOR_COMMS", fake, raising=False)
    return fake


@needs_airflow
@pytest.mark.parametrize("outcome", ["SUCCEEDED", "FAILED"])
@pytest.mark.parametrize("run", [{"submission_id": 1}, {"started_after": 0}], ids=str)
def test_link_works_while_the_sensor_waits_and_afterwards(
    run: dict[str, Any],
    outcome: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    xcom_supervisor: Supervisor,
) -> None:
    """The address is stored by the trigger as soon as the number is given, and by the worker."""
    sim.add_job(JOB, seconds=60, outcome=outcome)
    sim.start(JOB)
    try:
        task_runner.run(lambda: make_sensor(**run))
    except errors.CdmSubmissionFailed:
        assert outcome == "FAILED"
    address = task_runner.ti.xcoms["cdm_run_link"]
    assert address.endswith(f"/jobs/{JOB}/runs/1")
    early = {"cdm_run_link": address} if "submission_id" in run else {}
    assert xcom_supervisor.written == early


@needs_airflow
def test_retry_begins_in_the_triggerer_and_forgets_the_old_result(
    sim: CdmSimulator, task_runner: TaskRunner, xcom_supervisor: Supervisor
) -> None:
    """Airflow deletes old results where a worker begins, so the sensor does it: a failed one must
    not show the result of an earlier attempt.
    """
    sim.add_job(JOB, outcomes=["SUCCEEDED"], seconds=60)
    sim.start(JOB)
    task_runner.run(lambda: make_sensor(submission_id=1))
    assert xcom_supervisor.deleted == []
    task_runner.clear()
    with pytest.raises(errors.CdmConfigError):
        task_runner.run(make_sensor)
    assert xcom_supervisor.deleted == ["return_value"]
    assert task_runner.trigger_paths[1:] == task_runner.trigger_paths[:1]


def run_trigger(trigger: CdmSubmissionTrigger) -> dict[str, Any]:
    """Run a trigger to its end and return its event."""

    async def collect() -> Any:
        greenback = importlib.import_module("greenback")
        await greenback.ensure_portal()
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(collect())
    return dict(payload)


@needs_airflow
def test_look_up_without_an_answer_ends(
    cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that the triggerer does not answer fails the attempt, and not the triggerer."""
    greenback = importlib.import_module("greenback")
    monkeypatch.setattr("airflow_provider_cdm.triggers.submission_sensor._RENDER_SECONDS", 0.01)

    class Silent:
        def __str__(self) -> str:
            return str(greenback.await_(asyncio.get_running_loop().create_future()))

    trigger = CdmSubmissionSensorTrigger(
        job_name="{{ params }}", submission_id=1, poke_interval=30, timeout=600
    )
    trigger.render_template_fields({"params": Silent()})
    with pytest.raises(errors.CdmUnavailable, match="does not answer"):
        SubmissionEvent.unwrap(run_trigger(trigger))


@needs_airflow
def test_dag_that_changed_while_the_sensor_waits(
    sim: CdmSimulator, cdm_default: dict[str, Any]
) -> None:
    """Airflow then renders nothing: a template is never used as it is, and a retry begins anew."""
    sim.add_job("{{ ds }}")
    sim.start("{{ ds }}")
    options: dict[str, Any] = {"submission_id": 1, "poke_interval": 30, "timeout": 600}
    with pytest.raises(errors.CdmUnavailable, match="the DAG was changed"):
        SubmissionEvent.unwrap(
            run_trigger(CdmSubmissionSensorTrigger(job_name="{{ ds }}", **options))
        )
    sim.add_job(JOB)
    sim.start(JOB)
    plain = CdmSubmissionSensorTrigger(job_name=JOB, **{**options, "submission_id": 2})
    assert SubmissionEvent.unwrap(run_trigger(plain)).status == "SUCCEEDED"


@needs_airflow
@pytest.mark.parametrize("has_begun", [False, True])
def test_kill_leaves_the_run_alone(
    has_begun: bool,
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    log: pytest.LogCaptureFixture,
) -> None:
    """The sensor did not start the run; the log names it only if it is known by then."""
    sim.add_job(JOB)
    sim.start(JOB)
    trigger = CdmSubmissionSensorTrigger(
        job_name=JOB, submission_id="{{ 1 }}", poke_interval=30, timeout=600
    )
    trigger.render_template_fields({})
    if has_begun:
        run_trigger(trigger)
    asyncio.run(trigger.on_kill())
    assert ("Cancelled; run 1 of job 'orders'" in log.text) == has_begun
    assert "stop" not in [request.route for request in sim.requests]


@needs_airflow
def test_backoff_is_warned_of(
    sim: CdmSimulator, task_runner: TaskRunner, log: pytest.LogCaptureFixture
) -> None:
    """``exponential_backoff`` has no effect, as in a deferred sensor, and the log says so."""
    sim.add_job(JOB, seconds=60)
    sim.start(JOB)
    task_runner.run(lambda: make_sensor(submission_id=1, exponential_backoff=True))
    assert "exponential_backoff has no effect in the triggerer" in log.text
    assert f"Waiting for run 1 of job {JOB!r}" in log.text

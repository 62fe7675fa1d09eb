"""What a task's arguments say about one attempt: how to start its job, and how to wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from airflow_provider_cdm.client.jobs.progress import StallPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

IfRunning: TypeAlias = Literal["fail", "wait", "attach"]
OnGivingUp: TypeAlias = Literal["leave", "stop"]


@dataclass(frozen=True, slots=True)
class AttemptOptions:
    """What a task's arguments say about an attempt; they are described with the operators.

    :param variables: values for ``${name}`` in the job, as text by name.
    :param wait_limit: how long the attempt may wait, in seconds (``None`` for as long as the run
        takes), and the argument that sets it.
    :param stall: when a run counts as stalled, and what follows.
    """

    variables: Mapping[str, str]
    wait_for_completion: bool
    poll_interval: float
    wait_limit: tuple[float | None, str] = (None, "wait_timeout")
    stall: StallPolicy = field(default_factory=StallPolicy)
    if_running: IfRunning = "fail"
    cancel_on_kill: bool = True
    on_giving_up: OnGivingUp = "leave"
    standby_cluster_ids: Any = None

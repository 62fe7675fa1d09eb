"""What all triggers share: the connection, and the form in which Airflow stores them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from airflow_provider_cdm._compat import BaseTrigger

_PACKAGE = __name__.rpartition(".")[0]


class CdmTrigger(BaseTrigger):
    """Base of the triggers of this package.

    :param cluster_id: the cluster.
    :param poll_interval: seconds between two polls.
    :param deadline: when to give up, epoch seconds; ``None`` for never.
    :param project_id: project of the cluster; by default the connection's.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm``.
    """

    #: Names of all arguments; each is plain JSON and an attribute of the same name.
    arguments: ClassVar[Sequence[str]] = (
        "cluster_id",
        "poll_interval",
        "deadline",
        "project_id",
        "cdm_conn_id",
    )

    def __init__(
        self,
        *,
        cluster_id: str,
        poll_interval: float,
        deadline: float | None,
        project_id: str | None,
        cdm_conn_id: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's triggers are untyped
        self.cluster_id = cluster_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.project_id = project_id
        self.cdm_conn_id = cdm_conn_id

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Leave the arguments as they are: the task has rendered them.

        Airflow renders them again where the task began in the triggerer.
        """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Describe this trigger for the metadata database; holds no credentials.

        Databases of users keep the path, so it is the public one, whatever module the class is in.
        """
        cls = type(self)
        module = _PACKAGE if cls.__module__.startswith(f"{_PACKAGE}.") else cls.__module__
        arguments = {name: getattr(self, name) for name in self.arguments}
        return f"{module}.{cls.__qualname__}", arguments

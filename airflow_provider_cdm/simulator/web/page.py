"""The web page: clusters, jobs, runs and requests, rendered from ``page.html.j2``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Path of a run's page, with the placeholders of a connection's console URL.
RUN_PAGE = "/clusters/{cluster_id}/jobs/{job_name}/runs/{submission_id}"
#: Content security policy: the page loads nothing from other servers, even if the name of a job
#: contained HTML that was not escaped.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def overview(state: dict[str, Any]) -> str:
    """Return the page with all clusters and requests.

    :param state: see :func:`airflow_provider_cdm.simulator.web.snapshot.state`.
    """
    return _render("overview", state=state)


def run(cluster_name: str, run: dict[str, Any], tables: Sequence[dict[str, Any]] = ()) -> str:
    """Return the page of one run.

    :param cluster_name: name of the cluster.
    :param run: see :func:`airflow_provider_cdm.simulator.web.snapshot.run`.
    :param tables: runs of its tables, for a whole-database run.
    """
    return _render("run", cluster_name=cluster_name, run=run, tables=tables)


def missing(message: str) -> str:
    """Return the page for an address that does not exist.

    :param message: one sentence.
    """
    return _render("missing", message=message)


def run_path(run: dict[str, Any]) -> str:
    """Return the path of a run's page.

    :param run: see :func:`airflow_provider_cdm.simulator.web.snapshot.run`.
    """
    parts = ("cluster_id", "job_name", "submission_id")
    return RUN_PAGE.format(**{name: quote(str(run[name]), safe="") for name in parts})


def _format_time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _format_progress(share: float) -> str:
    return "" if share < 0 else f"{share:.0%}"


def _css_class(status: str) -> str:
    return status if status.isidentifier() else ""


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        loader=PackageLoader(__package__ or "", ""),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "css_class": _css_class,
        "progress": _format_progress,
        "run_path": run_path,
        "time": _format_time,
    }
    return environment


_ENVIRONMENT = _environment()


def _render(view: str, **values: Any) -> str:
    return _ENVIRONMENT.get_template("page.html.j2").render(view=view, **values)

"""The web page: what clusters, jobs and runs there are, and what was asked of them."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --good: #1a7f37; --bad: #cf222e;
  --busy: #0969da; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #f85149; --busy: #58a6ff; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem;
  padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
code, pre { font: .87em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .7rem; white-space: pre-wrap; }
.status { font-weight: 600; color: var(--busy); }
.SUCCEEDED { color: var(--good); } .FAILED, .FAILURE_ON_SUBMIT, .STOPPED { color: var(--bad); }
.none, small { opacity: .7; }
"""

# The page is drawn on the server only; the script fetches it anew when the state has changed.
_SCRIPT = """
let last = null;
setInterval(async () => {
  try {
    const state = await (await fetch("/_sim/state")).text();
    if (state !== last) {
      const text = await (await fetch(location.href)).text();
      const fresh = new DOMParser().parseFromString(text, "text/html");
      document.querySelector("main").replaceWith(fresh.querySelector("main"));
    }
    last = state;
  } catch (error) { /* the simulator has stopped; keep what is shown */ }
}, 1000);
"""

#: Path of a run's page, with the placeholders of a connection's console URL.
RUN_PAGE = "/clusters/{cluster_id}/jobs/{job_name}/runs/{submission_id}"
#: Nothing from elsewhere is loaded, whatever a job's name may contain.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


_RUN_HEADS = ("Run", "Job", "Status", "Progress", "Read", "Written", "Variables", "By", "Started")
_REQUEST_HEADS = ("Time", "Request", "Route", "User", "Answer", "Fault")


def overview(state: dict[str, Any]) -> str:
    """Return the page of everything.

    :param state: see :func:`airflow_provider_cdm.simulator.web.snapshot.state`.
    """
    parts = ["<h1>CDM simulator</h1>"]
    for cluster in state["clusters"]:
        parts.append(
            f"<h2>Cluster {escape(cluster['name'])} <small><code>{escape(cluster['id'])}</code>, "
            f"status {escape(cluster['status'])}</small></h2>"
        )
        parts += [
            "<h3>Jobs</h3>",
            _table(("Job", "Type", "From", "To", "Runs", "Last"), _jobs(cluster)),
        ]
        parts += ["<h3>Runs</h3>", _table(_RUN_HEADS, _runs(cluster["runs"]))]
    requests = [_request(each) for each in state["requests"]]
    parts += ["<h2>Requests</h2>", _table(_REQUEST_HEADS, requests)]
    return _document("CDM simulator", "".join(parts))


def run(cluster_name: str, run: dict[str, Any], tables: Sequence[dict[str, Any]] = ()) -> str:
    """Return the page of one run.

    :param cluster_name: where it runs.
    :param run: see :func:`airflow_provider_cdm.simulator.web.snapshot.run`.
    :param tables: runs of its tables, if it moves a whole database.
    """
    title = f"{run['job_name']}, run {run['submission_id']}"
    rows = [
        ("Cluster", f"{escape(cluster_name)} <code>{escape(run['cluster_id'])}</code>"),
        ("Status", _status(run["status"])),
        ("Progress", _progress(run)),
        ("Rows", f"{run['rows_read']} read, {run['rows_written']} written"),
        ("Variables", _pairs(run["variables"])),
        ("Started by", escape(run["user"]) + (" (schedule)" if run["auto"] else "")),
        ("Submitted", _time(run["created"])),
        ("Running since", _time(run["executed"])),
        ("Last change", _time(run["updated"])),
        ("Counters", _pairs(run["counters"] or {})),
    ]
    parts = ['<p><a href="/">All clusters</a></p>', f"<h1>{escape(title)}</h1>", _table((), rows)]
    if run["error_summary"]:
        parts += ["<h2>Error</h2>", f"<p>{escape(run['error_summary'])}</p>"]
        parts.append(f"<pre>{escape(run['error_details'] or '')}</pre>")
    if tables:
        parts += ["<h2>Tables</h2>", _table(_RUN_HEADS, _runs(tables))]
    return _document(title, "".join(parts))


def missing(what: str) -> str:
    """Return the page for an address that leads nowhere.

    :param what: one sentence.
    """
    return _document(
        "Not found", f"<h1>Not found</h1><p>{escape(what)}</p><p><a href='/'>All</a></p>"
    )


def run_path(run: dict[str, Any]) -> str:
    """Return the address of a run's page.

    :param run: see :func:`airflow_provider_cdm.simulator.web.snapshot.run`.
    """
    parts = ("cluster_id", "job_name", "submission_id")
    return RUN_PAGE.format(**{name: quote(str(run[name]), safe="") for name in parts})


def _document(title: str, main: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style></head><body><main>{main}</main>"
        f"<script>{_SCRIPT}</script></body></html>"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are HTML already."""
    if not rows:
        return '<p class="none">none yet</p>'
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _jobs(cluster: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            escape(job["name"]) + ("" if job["enabled"] else " <small>(disabled)</small>"),
            escape(job["type"]),
            escape(str(job["from"])),
            escape(str(job["to"])),
            str(job["runs"]),
            _status(job["status"]) + _tally(job["tables"]),
        )
        for job in cluster["jobs"]
    ]


def _runs(runs: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            f'<a href="{escape(run_path(run))}">{run["submission_id"]}</a>',
            escape(run["job_name"]),
            _status(run["status"]) + _summary(run),
            _progress(run),
            str(run["rows_read"]),
            str(run["rows_written"]),
            _pairs(run["variables"]),
            escape(run["user"]),
            _time(run["created"]),
        )
        for run in runs
    ]


def _tally(tables: dict[str, int]) -> str:
    """Return how the tables of a whole database are doing, in few words."""
    listed = ", ".join(f"{count} {escape(word)}" for word, count in tables.items())
    return f"<br><small>tables: {listed}</small>" if listed else ""


def _request(entry: dict[str, Any]) -> tuple[str, ...]:
    query = "&".join(f"{key}={value}" for key, value in entry["query"].items())
    target = entry["path"] + (f"?{query}" if query else "")
    return (
        _time(entry["at"]),
        f"<code>{escape(entry['method'])} {escape(target)}</code>",
        escape(entry["route"]),
        escape(entry["user"] or ""),
        str(entry["status"] or "none"),
        escape(entry["fault"] or ""),
    )


def _status(word: str) -> str:
    known = word if word.isidentifier() else ""
    return f'<span class="status {known}">{escape(word)}</span>'


def _summary(run: dict[str, Any]) -> str:
    return f"<br><small>{escape(run['error_summary'])}</small>" if run["error_summary"] else ""


def _progress(run: dict[str, Any]) -> str:
    return "" if run["progress"] < 0 else f"{run['progress']:.0%}"


def _pairs(pairs: dict[str, Any]) -> str:
    return "<br>".join(f"<code>{escape(key)}={escape(str(pairs[key]))}</code>" for key in pairs)


def _time(instant: float | None) -> str:
    if instant is None:
        return ""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

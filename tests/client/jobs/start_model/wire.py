"""The model of CDM's API: requests, answers, and what goes wrong between."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_cdm.client.sansio import Request, Response, TransportError
from tests.client.jobs.start_model.cdm import CLUSTER, Cdm, Job, Owner, Run, cluster_of, job_in

#: The last two, late effects, happen only to starts.
_MISHAPS = ["refused", "lost", "503 before", "429", "unanswered", "503 after", "broken"] + [
    "late"
] * 2
_BEFORE = ("refused", "lost", "503 before", "429", "late")
_HARMLESS = ("refused", "429")
#: How old a history may be that is out of date, in seconds; the last one shows no run.
_AGES = (30.0, 3600.0, 1e6, 1e9)


class Wire:
    """Answers the requests of one task.

    :param last_shown: run that a status call showed active last, to judge the stop after it.
    :param start_unanswered: whether the last request was a start whose effect is not known.
    """

    def __init__(self, cdm: Cdm) -> None:
        self.cdm = cdm
        self.last_shown: Run | None = None
        self.start_unanswered = False

    def exchange(self, request: Request, owner: Owner) -> Response:
        """Answer a request, or raise a transport error."""
        cdm = self.cdm
        cdm.pass_time(cdm.rng.uniform(0.05, 1.0))
        start = request.url.endswith("/start")
        kind = "start" if start else "other call"
        if start:
            cdm.starts[owner] += 1
        mishap, self.start_unanswered = None, False
        if not cdm.calm and cdm.rng.random() < cdm.fault_rate:
            mishap = cdm.rng.choice(_MISHAPS if start else _MISHAPS[:-2])
            cdm.note(f"{mishap}: {kind}")
            if start and mishap not in _HARMLESS:
                cdm.doubt(owner)
                self.start_unanswered = True
        if mishap in _BEFORE:
            if mishap == "late":
                at = cdm.now + cdm.rng.uniform(0, 55)
                cdm.late.append((at, owner, _job_of(request), _variables(request)))
            return self._fail(mishap)
        answer = self._act(request, owner)
        cdm.pass_time(cdm.rng.uniform(0.05, 1.0))
        if mishap is None:
            return answer
        if mishap == "broken":
            return Response(200, self._headers(), b'{"submissions": [')
        return self._fail(mishap)

    def _fail(self, mishap: str) -> Response:
        if mishap == "refused":
            raise TransportError("refused", sent=False)
        if mishap in ("lost", "unanswered", "late"):
            self.cdm.pass_time(self.cdm.rng.choice([0.1, 10, 60]))
            raise TransportError("time-out", sent=True)
        status = 429 if mishap == "429" else 503
        return Response(status, self._headers(), b"")

    def _headers(self) -> dict[str, str]:
        if not self.cdm.tells_time:
            return {}
        return {"date": formatdate(self.cdm.now + self.cdm.server_ahead, usegmt=True)}

    def _answer(self, body: Any) -> Response:
        return Response(200, self._headers(), json.dumps(body).encode())

    def _refuse(self, code: str) -> Response:
        self.cdm.note(code)
        body = {"errCode": f"Cdm.{code}", "externalMessage": "refused"}
        return Response(400, self._headers(), json.dumps(body).encode())

    def _act(self, request: Request, owner: Owner) -> Response:
        """Do what a request asks for."""
        cluster = urlsplit(request.url).path.split("/clusters/")[1].split("/")[0]
        if request.url.endswith(f"/clusters/{cluster}"):
            return self._show_cluster(cluster)
        if cluster in self.cdm.stopped:
            return self._refuse_stopped(request, owner)
        if request.method == "POST":
            return self._create(request)
        name = _job_of(request)
        job = self.cdm.jobs.get(name)
        if job is None:
            return self._refuse("0054")
        end = request.url.rsplit("/", 1)[-1]
        acts: dict[str, Callable[[], Response]] = {
            "start": lambda: self._start(name, owner, request),
            "status": lambda: self._status(job),
            "stop": lambda: self._stop(job, owner),
        }
        if end in acts:
            return acts[end]()
        if "/submissions?" in request.url:
            return self._history(job)
        return self._change(request, name, job)

    def _show_cluster(self, cluster: str) -> Response:
        cdm = self.cdm
        # The state lags behind.
        stopped = cdm.now - cdm.stopped.get(cluster, cdm.now) > cdm.rng.choice([0, 0, 5])
        cdm.note("stopped cluster shown" if stopped else "cluster shown", cluster)
        status = "900" if stopped else "200"
        return self._answer({"id": cluster, "name": cluster, "status": status})

    def _refuse_stopped(self, request: Request, owner: Owner) -> Response:
        self.cdm.note("refused by a stopped cluster")
        if self.cdm.stopped_answer == 503:
            if request.url.endswith("/start"):
                self.cdm.doubt(owner)
            return Response(503, self._headers(), b"")
        body = {"errCode": "Cdm.0999", "externalMessage": "The cluster is not available."}
        return Response(self.cdm.stopped_answer, self._headers(), json.dumps(body).encode())

    def _start(self, name: str, owner: Owner, request: Request) -> Response:
        run = self.cdm.start(name, owner, _variables(request))
        if run is None:
            return self._refuse("0052")
        self.cdm.note("started", run)
        if cluster_of(name) != CLUSTER:
            self.cdm.note("started in the stand-by cluster")
        if self.cdm.ids == "bare":
            # Which run it is has to be settled as if no answer had come.
            self.cdm.doubt(owner)
        return self._answer({"submissions": [self._show(run, start=True)]})

    def _status(self, job: Job) -> Response:
        self.last_shown = job.active(self.cdm.now)
        never = {"status": "NEVER_EXECUTED", "creation-date": int(self.cdm.now * 1000)}
        return self._answer({"submissions": [self._show(job.runs[-1]) if job.runs else never]})

    def _history(self, job: Job) -> Response:
        cdm, runs = self.cdm, job.runs
        if not cdm.calm and cdm.rng.random() < cdm.stale_rate:
            before = cdm.now + cdm.server_ahead + cdm.records_ahead - cdm.rng.choice(_AGES)
            runs = [run for run in runs if run.created < before]
            cdm.hide(job.runs[len(runs) :])
            cdm.note("stale history" if runs else "empty history")
        shown = [self._show(run) for run in reversed(runs[-10:])]
        if cdm.rng.random() < 0.05:
            other = {"submission-id": cdm.next_number, "job-name": "other", "status": "RUNNING"}
            shown.insert(0, other)
        return self._answer({"submissions": shown, "total": len(runs)})

    def _stop(self, job: Job, owner: Owner) -> Response:
        cdm = self.cdm
        run = job.active(cdm.now)
        if run is None:
            return self._refuse("0053")
        cdm.note("stopped", run)
        own = run.owner is not None and run.owner[:2] == owner[:2]
        # Between the look and the stop, another run may have begun: nothing can be done about it.
        if not own and run is self.last_shown and not cdm.take(owner, run):
            cdm.problems.append(f"stopped {run}")
        ends = cdm.now + cdm.rng.uniform(0.2, 3)
        if ends < run.ends:
            run.ends, run.outcome = ends, "STOPPED"
        return self._answer({})

    def _create(self, request: Request) -> Response:
        definition = _definition(request)
        if definition["name"] in self.cdm.jobs:
            return self._refuse("0104")
        self.cdm.note("job created")
        self.cdm.jobs[definition["name"]] = Job(definition)
        return self._answer({})

    def _change(self, request: Request, name: str, job: Job) -> Response:
        """Show, update or delete a job."""
        if request.method == "GET":
            return self._answer({"jobs": [job.definition or {"name": name.rpartition(":")[2]}]})
        if job.active(self.cdm.now):
            return self._refuse("0321")
        if request.method == "DELETE":
            self.cdm.note("job deleted")
            del self.cdm.jobs[name]
        else:
            self.cdm.note("job updated")
            job.definition = _definition(request)
        return self._answer({})

    def _show(self, run: Run, *, start: bool = False) -> dict[str, Any]:
        ids = self.cdm.ids
        shown: dict[str, Any] = {"status": run.status(self.cdm.now), "is-execute-auto": run.auto}
        if start and ids == "bare":
            return shown
        shown |= {"creation-date": run.created_ms, "job-name": run.job.rpartition(":")[2]}
        if self.cdm.now >= run.ends:
            shown["last-update-date"] = int(
                (run.ends + self.cdm.server_ahead + self.cdm.records_ahead) * 1000
            )
        if ids in ("present", "bare") or (ids == "absent-in-start" and not start):
            shown["submission-id"] = run.number
        return shown


def _job_of(request: Request) -> str:
    """Return the name under which the job of a request is kept."""
    parts = urlsplit(request.url)
    cluster, _, rest = parts.path.split("/clusters/")[1].partition("/")
    if parts.query.startswith("jname="):
        return job_in(cluster, parts.query.removeprefix("jname="))
    return job_in(cluster, rest.removeprefix("cdm/job/").split("/")[0])


def _variables(request: Request) -> Mapping[str, Any]:
    variables: Mapping[str, Any] = json.loads(request.body or b"{}").get("variables", {})
    return variables


def _definition(request: Request) -> Mapping[str, Any]:
    definition: Mapping[str, Any] = json.loads(request.body or b"")["jobs"][0]
    return definition

"""IAM's routes: tokens and projects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_cdm.simulator.errors import CdmError, IamError
from airflow_provider_cdm.simulator.messages import Answer, Call, json_answer
from airflow_provider_cdm.simulator.routes.routing import Route

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.backend import World
    from airflow_provider_cdm.simulator.gateway.iam import Delegate


def issue_token(world: World, call: Call) -> Answer:
    """Answer "Obtaining a User Token" and "... an Agency Token": 201, the token in a header."""
    now = world.agenda.now()
    world.quotas.charge(_claimed_user(call), call.route, now)
    try:
        body = call.json()
    except CdmError as exc:
        raise IamError(400, "", "The request body is invalid") from exc
    token = world.iam.issue(body, lambda: _asker(world, call), now)
    described = world.iam.describe(token, catalog=not call.query.get("nocatalog"))
    return json_answer(described, 201, {"X-Subject-Token": token.value})


def validate_token(world: World, call: Call) -> Answer:
    """Answer "Verifying a Token"; an unknown one is not found (ASSUMED)."""
    now = world.agenda.now()
    world.iam.token(call.headers.get("x-auth-token"), now)
    subject = world.iam.tokens.get(call.headers.get("x-subject-token", ""))
    if subject is None or subject.expires <= now:
        raise IamError(404, "", "The token could not be found.")
    described = world.iam.describe(subject, catalog=not call.query.get("nocatalog"))
    return json_answer(described, headers={"X-Subject-Token": subject.value})


def list_projects(world: World, call: Call) -> Answer:
    """Answer "Querying Project Information"; a signed request will do as well as a token."""
    domain = _asker(world, call).domain
    projects = world.iam.find_projects(domain, call.query.get("name"))
    return json_answer({"projects": projects, "links": {"next": None, "previous": None}})


def _asker(world: World, call: Call) -> Delegate:
    """Who sends a token or, as clients of the official Terraform provider do, a signature."""
    now = world.agenda.now()
    if call.headers.get("authorization"):
        call.identity = world.gateway.identify(call, now)
        return call.identity
    return world.iam.token(call.headers.get("x-auth-token"), now)


def _claimed_user(call: Call) -> str:
    """IAM throttles before it knows who asks; the sender is all there is (ASSUMED)."""
    return call.headers.get("host", "")


ROUTES = [
    Route("token", "POST", "/v3/auth/tokens", issue_token, "iam"),
    Route("validate_token", "GET", "/v3/auth/tokens", validate_token, "iam"),
    Route("project_list", "GET", "/v3/projects", list_projects, "iam"),
]

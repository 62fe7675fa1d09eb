"""IAM routes: tokens and projects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.errors import CdmError, IamError
from airflow_provider_cdm.simulator.messages import Request, Response, json_response
from airflow_provider_cdm.simulator.routes.routing import Route

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.backend import Backend
    from airflow_provider_cdm.simulator.gateway.iam import Delegate


def issue_token(backend: Backend, request: Request) -> Response:
    """Handle "Obtaining a User Token" and "... an Agency Token" with the token in a header."""
    now = backend.event_queue.now()
    backend.quotas.charge(_quota_key(request), request.route, now)
    try:
        login = request.json()
    except CdmError as exc:
        raise IamError(400, "", "The request body is invalid") from exc
    token = backend.iam.issue(login, lambda: _sender_of(backend, request), now)
    body = backend.iam.describe(token, catalog=not request.query.get("nocatalog"))
    return json_response(body, 201, {"X-Subject-Token": token.value})


def validate_token(backend: Backend, request: Request) -> Response:
    """Handle "Verifying a Token"; the status for an unknown token is 404 (ASSUMED)."""
    now = backend.event_queue.now()
    backend.iam.token(request.headers.get("x-auth-token"), now)
    subject = backend.iam.tokens.get(request.headers.get("x-subject-token", ""))
    if subject is None or subject.expires <= now:
        raise IamError(404, "", "The token could not be found.")
    body = backend.iam.describe(subject, catalog=not request.query.get("nocatalog"))
    return json_response(body, headers={"X-Subject-Token": subject.value})


def list_projects(backend: Backend, request: Request) -> Response:
    """Handle "Querying Project Information" for a request with a token or a signature.

    :raises IamError: 403 with the recorded text if the user lacks the permission.
    """
    sender = _sender_of(backend, request)
    if not backend.iam.lists_projects(sender):
        raise IamError(403, "", "You are not authorized to perform the requested action.")
    projects = backend.iam.find_projects(sender.domain, request.query.get("name"))
    return _projects_response(projects)


def list_own_projects(backend: Backend, request: Request) -> Response:
    """Handle "Querying the List of Projects Accessible to Users", which needs no permission."""
    if request.headers.get("authorization") and not backend.behaviour.signed_auth_projects:
        raise IamError(401, "", "The request you have made requires authentication.")
    return _projects_response(backend.iam.find_projects(_sender_of(backend, request).domain, None))


def _projects_response(projects: list[dict[str, Any]]) -> Response:
    return json_response({"projects": projects, "links": {"next": None, "previous": None}})


def _sender_of(backend: Backend, request: Request) -> Delegate:
    """Return the sender; the official Terraform provider signs requests instead of sending tokens.

    :raises WireError: if the token or the signature is not valid.
    """
    now = backend.event_queue.now()
    if request.headers.get("authorization"):
        request.identity = backend.gateway.identify(request, now)
        return request.identity
    return backend.iam.token(request.headers.get("x-auth-token"), now)


def _quota_key(request: Request) -> str:
    """Return the key for the quota; IAM throttles before it checks credentials (ASSUMED)."""
    return request.headers.get("host", "")


ROUTES = [
    Route("token", "POST", "/v3/auth/tokens", issue_token, "iam"),
    Route("validate_token", "GET", "/v3/auth/tokens", validate_token, "iam"),
    Route("project_list", "GET", "/v3/projects", list_projects, "iam"),
    Route("own_project_list", "GET", "/v3/auth/projects", list_own_projects, "iam"),
]

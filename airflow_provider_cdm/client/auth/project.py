"""The id of a project by its name, for access keys: IAM tells it with a token otherwise."""

from __future__ import annotations

import re
from functools import partial
from typing import Any
from urllib.parse import quote

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth.base import (
    Authenticator,
    Authorization,
    with_authorization,
)
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.sansio import Flow, Request, Response
from airflow_provider_cdm.client.text import read_json

#: How many projects an error lists.
_LISTED = 10
_ADVICE = "Fill in Project ID in the connection; the IAM console shows it under My Credentials."

#: A project as its id and its name.
Project = tuple[str, str]


def find_project(
    auth: Authenticator, exchanger: Exchanger, iam_endpoint: str, name: str
) -> Flow[str]:
    """Return the id of the project with a name, by two calls of which the second needs no rights.

    ``GET /v3/projects?name=`` is the one that is known to accept signatures, so a refusal of it is
    about the key. Without the permission for it, or without a project of that name, ``GET
    /v3/auth/projects`` shows what the user may use; whether it accepts signatures is not
    documented, so a refusal of it says nothing about the key.

    :param auth: authenticator without a project.
    :param exchanger: performs the calls.
    :param iam_endpoint: URL of IAM.
    :param name: name of the project, which is that of a region or begins with it.
    :raises CdmConfigError: when there is not exactly one project of that name.
    :raises CdmAuthError: when the key is rejected, or may not see projects.
    """
    operation = f"find project {name!r} at {iam_endpoint}"
    read = partial(_read, exchanger, operation, iam_endpoint)
    by_name = f"/v3/projects?name={quote(name, safe='')}"
    projects: list[Project] = []
    refusal: errors.CdmError | None = None
    try:
        projects = yield from with_authorization(auth, partial(read, by_name))
    except (errors.CdmAuthError, errors.CdmRefused) as error:
        if error.refuses_credentials:
            raise
        refusal = error
    if not _named(projects, name):
        try:
            authorization = yield from auth.authorize()
            projects = yield from read("/v3/auth/projects", authorization)
        except (errors.CdmAuthError, errors.CdmRefused, errors.CdmBadResponse) as error:
            if refusal is not None:
                raise _not_shown(refusal, error) from None
        else:
            auth.accept(authorization)
    return _only(projects, name, operation)


def _read(
    exchanger: Exchanger, operation: str, iam_endpoint: str, path: str, authorization: Authorization
) -> Flow[list[Project]]:
    headers = {"Content-Type": "application/json"}
    request = Request(method="GET", url=iam_endpoint + path, headers=headers)
    response = yield from exchanger.exchange(
        request, operation, idempotent=True, authorize=authorization.apply
    )
    return _projects_in(response, operation)


def _projects_in(response: Response, operation: str) -> list[Project]:
    try:
        body: Any = read_json(response.body)["projects"]
        return [(str(project["id"]), str(project["name"])) for project in body]
    except (ValueError, KeyError, TypeError):
        raise error_mapping.bad_response(
            response, operation, "the response lists no projects"
        ) from None


def _named(projects: list[Project], name: str) -> list[Project]:
    """Return the projects of a name; IAM may list others as well."""
    return [project for project in projects if project[1] == name]


def _only(projects: list[Project], name: str, operation: str) -> str:
    matches = _named(projects, name)
    # The id is sent in a header, so it must not contain anything else.
    if len(matches) == 1 and re.fullmatch(r"[\w-]+", matches[0][0], re.ASCII):
        return matches[0][0]
    shown = [f"{label} ({number})" for number, label in (matches or projects)[:_LISTED]]
    error = errors.CdmConfigError(
        f"One project named {name!r} was expected, but these were found:"
        f" {', '.join(shown) or 'none'}. Could not {operation}. Check Region. {_ADVICE}"
    )
    error.concerns_project = True
    raise error


def _not_shown(refusal: errors.CdmError, second: errors.CdmError) -> errors.CdmAuthError:
    """Return the error for a key to which IAM shows no projects.

    :param refusal: how the call failed that needs the permission.
    :param second: how the call failed that needs none.
    """
    reason = refusal.message.removesuffix(refusal.advice).rstrip()
    error = errors.CdmAuthError(
        f"{reason} The access key is right, but may not see projects; the list of projects that it"
        f" may use was refused as well ({second.code or 'no code'}, HTTP {second.http_status})."
        f" {_ADVICE}",
        # Not the status of the second call: a 401 there is no refusal of the key.
        http_status=refusal.http_status,
        code=refusal.code,
        request_id=refusal.request_id,
    )
    error.concerns_project = True
    return error

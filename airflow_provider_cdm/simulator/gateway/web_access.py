"""Refuses requests that a web page in somebody's browser sends to the simulator.

The simulator has no password for its page and its controls, and browsers send requests of any page
to any address. A page of another site must neither read nor change anything: not by a name of its
own that leads here (DNS rebinding), and not by a form or a script that needs no answer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from airflow_provider_cdm.simulator.errors import GatewayError

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.messages import Request

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://(?P<host>[^/?#@\\]+)")
#: Names of the routes that other sites may link to, such as the button in Airflow.
PAGES = frozenset({"page", "run_page"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Operation(Protocol):
    """What is to be known of a route."""

    @property
    def name(self) -> str:
        """Short name."""


class WebAccess:
    """Decides which requests are answered.

    :param hosts: host names that the simulator may be called by, besides those of the loopback
        interface.
    """

    def __init__(self, hosts: Collection[str]) -> None:
        self._hosts = {"localhost", *(_normalized(host) for host in hosts)}

    def check(self, request: Request, address: str, route: Operation | None) -> None:
        """Raise an error unless a request is for this simulator, and from itself or a program.

        :param request: request whose body need not be read yet.
        :param address: address of this machine that the connection is to.
        :param route: route of the request, if there is one.
        :raises GatewayError: 421 for another host, 403 for another site, 415 for a change that is
            not JSON.
        """
        host = request.headers.get("host", "")
        if not self._is_own(host, address):
            raise GatewayError(
                421,
                "APIGW.0101",
                f"The simulator does not answer to the host {host[:100]!r}. If this is its name, "
                "list the name under hosts: in the configuration.",
            )
        is_page = route is not None and route.name in PAGES
        if not _is_same_site(request, host) and not (is_page and _is_navigation(request)):
            raise GatewayError(
                403, "APIGW.0302", "The simulator refuses requests from pages of other sites."
            )
        if route is not None and not _is_safe_or_json(request):
            raise GatewayError(
                415, "APIGW.0106", "The simulator expects Content-Type: application/json."
            )

    def _is_own(self, host: str, address: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = _normalized(match["name"])
        if name in self._hosts:
            return True
        try:
            ip = ipaddress.ip_address(name)
        except ValueError:
            return False
        # A browser that was given an address itself was not misled by a name.
        return ip.is_loopback or name == _normalized(address)


def _normalized(host: str) -> str:
    return host.strip("[]").lower().removesuffix(".")


def _is_same_site(request: Request, host: str) -> bool:
    """Return whether no other site has caused a request, as far as the sender tells."""
    # All browsers of the last years send these headers, and only browsers do.
    if request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True
    match = _ORIGIN.fullmatch(origin)
    return match is not None and match["host"].lower() == host.lower()


def _is_navigation(request: Request) -> bool:
    """Return whether somebody has followed a link, such as the button in Airflow."""
    return (
        request.method == "GET"
        and "origin" not in request.headers
        and request.headers.get("sec-fetch-mode") == "navigate"
        and request.headers.get("sec-fetch-dest") == "document"
    )


def _is_safe_or_json(request: Request) -> bool:
    """Return whether a request changes nothing, or is one that no form can send.

    A form sends POST with a type of its own, or none. Calls without a body may lack the type.
    """
    if request.method in _SAFE_METHODS:
        return True
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or (request.method != "POST" and not media_type)

"""Types of the fixtures that are functions, for the tests of the client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_cdm.client.session import CdmSession

#: Performs a flow of a session and returns its result.
Drive = Callable[[CdmSession, Any], Any]
#: Makes a session with the simulator; its arguments change the connection.
MakeSession = Callable[..., CdmSession]
#: Returns the simulator's requests on some routes.
Sent = Callable[..., list[Any]]

"""The links of a cluster, and the databases behind them."""

from __future__ import annotations

from collections import UserDict
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.backend.models import Link
from airflow_provider_cdm.simulator.transfer import jdbc

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.event_queue import EventQueue
    from airflow_provider_cdm.simulator.config.config import LinkConfig, SimulatorConfig


class Links(UserDict[str, Link]):
    """The links of one cluster by name.

    :param event_queue: source of the current time.
    :param defaults: configuration of the simulator with the ``databases`` behind links.
    """

    def __init__(self, event_queue: EventQueue, defaults: SimulatorConfig) -> None:
        super().__init__()
        self._event_queue, self._defaults = event_queue, defaults

    def put(
        self, wire: dict[str, Any], user: str, url: str | None = None, enabled: bool = True
    ) -> Link:
        """Add a link, or replace the link with the same name.

        :param wire: link object (JSON).
        :param user: name of the user who adds it.
        :param url: URL of its database; default that of ``databases`` for this name.
        :param enabled: whether its jobs can be started.
        """
        name, now = wire["name"], self._event_queue.now()
        old = self.get(name)
        url = self.url_of(name, url or (old.url if old else None))
        link = Link(name, wire, url, user, old.created if old else now, now, enabled)
        self[name] = link
        return link

    def put_configured(self, config: LinkConfig) -> None:
        """Add a link, or replace the link with the same name.

        :param config: configuration of the link.
        """
        wire = {"name": config.name, "connector-name": config.connector, "link-config-values": {}}
        self.put(wire, user="console", url=config.url, enabled=config.enabled)

    def url_of(self, name: str, url: str | None = None) -> str | None:
        """Return the URL of the database behind a link.

        :param name: name of the link, which need not exist yet.
        :param url: URL that takes precedence over the configured ``databases``.
        """
        url = url or self._defaults.databases.get(name)
        return jdbc.absolute(url, self._defaults.base) if url else None

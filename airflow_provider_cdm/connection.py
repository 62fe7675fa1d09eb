"""The connection ``huaweicloud_cdm``: its fields, its form, and settings made of them.

The fields are declared once, here; the form of Airflow 3 (provider info), the form of Airflow 2
(hook methods) and every message about a field are made from the declaration.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from airflow_provider_cdm.client.errors import CdmConfigError
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings

CONN_TYPE = "huaweicloud_cdm"


class ConnectionLike(Protocol):
    """What is needed of an Airflow connection."""

    conn_id: Any
    host: Any
    schema: Any
    login: Any
    password: Any
    port: Any
    extra: Any


@dataclass(frozen=True, slots=True)
class ExtraField:
    """A field of the connection's extra.

    :param kind: JSON Schema type that the form uses.
    """

    name: str
    label: str
    description: str
    kind: str = "string"


LABELS = {
    "login": "IAM User Name",
    "password": "IAM Password",
    "host": "CDM Endpoint",
    "schema": "Endpoint Scheme",
    "port": "Endpoint Port",
}
PLACEHOLDERS = {
    "login": "an IAM user with programmatic access",
    "host": "leave empty for https://cdm.{region}.myhuaweicloud.com",
    "schema": "https",
    "port": "443",
}
EXTRA_FIELDS = (
    ExtraField("region", "Region", "Region of the cluster, such as eu-west-101 or cn-north-4."),
    ExtraField("domain_name", "Account Name", "Account (domain) that the IAM user belongs to."),
    ExtraField(
        "project_id",
        "Project ID",
        "Project of the cluster. Left empty, the region's own project is taken.",
    ),
    ExtraField("cluster_id", "Cluster ID", "Cluster of tasks that name none."),
    ExtraField(
        "iam_endpoint",
        "IAM Endpoint",
        "Empty: https://iam.{region}.myhuaweicloud.com; other clouds than the main one set it.",
    ),
    ExtraField(
        "verify",
        "Verify TLS",
        "true, or the path of a CA bundle; false switches the check of certificates off.",
    ),
    ExtraField("proxy", "Proxy", "URL of an HTTP proxy for all calls."),
    ExtraField(
        "connect_timeout", "Connect Timeout", "Seconds to connect. By default 10.", "number"
    ),
    ExtraField("read_timeout", "Read Timeout", "Seconds without an answer. Default 60.", "number"),
    ExtraField(
        "console_url",
        "Console URL",
        "Where the CDM run link leads; may hold {region}, {project_id}, {cluster_id}, {job_name}"
        " and {submission_id}.",
    ),
    ExtraField(
        "requests_per_minute",
        "Requests per Minute",
        "Calls of one kind that this user may make in a minute.",
        "integer",
    ),
    ExtraField(
        "allow_http",
        "Allow Plain HTTP",
        "true allows endpoints without TLS beyond this machine; the password is then readable.",
        "boolean",
    ),
)
_NOT_YET = ("access_key", "secret_key", "security_token", "agency_name", "agency_domain_name")


def form_metadata() -> dict[str, Any]:
    """The form as provider info describes it to Airflow 3."""
    return {
        "ui-field-behaviour": {
            "hidden-fields": [],
            "relabeling": dict(LABELS),
            "placeholders": dict(PLACEHOLDERS),
        },
        "conn-fields": {
            # No defaults: the form would write them into the extra as soon as it opens.
            field.name: {
                "label": field.label,
                "description": field.description,
                "schema": {"type": [field.kind, "null"]},
            }
            for field in EXTRA_FIELDS
        },
    }


def settings_from(connection: ConnectionLike) -> Settings:
    """Make settings of an Airflow connection.

    :raises CdmConfigError: names all missing and wrong fields at once, by their labels.
    """
    return _Reader(connection).settings()


class _Reader:
    """Reads one connection and gathers what is wrong with it."""

    def __init__(self, connection: ConnectionLike) -> None:
        self._connection = connection
        self._problems: list[str] = []
        self._extra = self._read_extra(connection.extra)
        self._allow_http = self._flag("allow_http", default=False) is True

    def settings(self) -> Settings:
        region = self._text("region")
        host = _clean(self._connection.host)
        iam_host = self._text("iam_endpoint")
        project_id = self._text("project_id")
        if region is None and not (host and iam_host and project_id):
            self._missing("region", " (or CDM Endpoint, IAM Endpoint and Project ID together)")
        credentials = PasswordCredentials(
            user=self._required(LABELS["login"], self._connection.login),
            password=self._required(LABELS["password"], self._connection.password),
            domain=self._required(_label("domain_name"), self._extra.get("domain_name")),
        )
        for name in _NOT_YET:
            if self._extra.get(name):
                self._problems.append(f"{name} is not supported by this version")
        settings = Settings(
            cdm_endpoint=self._cdm_endpoint(host, region),
            iam_endpoint=self._endpoint(
                _label("iam_endpoint"), iam_host or f"https://iam.{region}.myhuaweicloud.com"
            ),
            credentials=credentials,
            region=region,
            project_id=project_id,
            project_name=region,
            cluster_id=self._text("cluster_id"),
            verify=self._flag("verify", default=True),
            proxy=self._proxy(),
            connect_timeout=self._number("connect_timeout", 10.0),
            read_timeout=self._number("read_timeout", 60.0),
            console_url=self._text("console_url"),
            requests_per_minute=int(self._number("requests_per_minute", 0)) or None,
        )
        if self._problems:
            raise CdmConfigError(
                f"The connection {self._connection.conn_id!r} cannot be used: "
                + "; ".join(self._problems)
                + "."
            )
        return settings

    def _read_extra(self, raw: Any) -> Mapping[str, Any]:
        if not raw:
            return {}
        try:
            extra = json.loads(raw) if isinstance(raw, str | bytes) else raw
        except ValueError:
            extra = None
        if not isinstance(extra, Mapping):
            self._problems.append("Extra is not a JSON object")
            return {}
        return extra

    def _cdm_endpoint(self, host: str | None, region: str | None) -> str:
        if host is None:
            return f"https://cdm.{region}.myhuaweicloud.com"
        if "://" not in host:
            host = f"{_clean(self._connection.schema) or 'https'}://{host}"
        port = self._connection.port
        parts = _split(host)
        if port and parts.netloc.rpartition("]")[2].count(":") == 0:
            host = parts._replace(netloc=f"{parts.netloc}:{port}").geturl()
        return self._endpoint(LABELS["host"], host)

    def _endpoint(self, label: str, url: str) -> str:
        parts = _split(url if "://" in url else f"https://{url}")
        try:
            wrong = parts.port == 0
        except ValueError:
            wrong = True
        if wrong or parts.scheme not in ("http", "https") or not parts.hostname:
            self._problems.append(f"{label} is not an http or https address: {parts.netloc!r}")
        elif parts.username or parts.query or parts.fragment:
            self._problems.append(f"{label} must not hold a user, a query or a fragment")
        elif parts.scheme == "http" and not (self._allow_http or _is_loopback(parts.hostname)):
            self._problems.append(
                f"{label} is plain HTTP, which would show the password to the network; use https,"
                ' or set "allow_http": true in Extra'
            )
        return parts.geturl().rstrip("/")

    def _proxy(self) -> str | None:
        value = self._text("proxy")
        if value is not None and not (value.startswith("http") and _split(value).hostname):
            # Not shown: it may hold a password.
            self._problems.append(f"{_label('proxy')} is not a URL such as http://proxy:3128")
        return value

    def _text(self, name: str) -> str | None:
        value = self._extra.get(name)
        if value is not None and not isinstance(value, str):
            self._problems.append(f"{_label(name)} must be text, not {type(value).__name__}")
            return None
        return _clean(value)

    def _required(self, label: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            self._problems.append(f"{label} is missing")
            return ""
        return value

    def _missing(self, name: str, alternative: str = "") -> None:
        self._problems.append(f"{_label(name)} is missing{alternative}")

    def _flag(self, name: str, *, default: bool) -> bool | str:
        value = self._extra.get(name)
        if value is None or value == "":
            return default
        if isinstance(value, bool):
            return value
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        text = str(value).strip()
        if name == "verify":
            return known.get(text.lower(), text)
        if text.lower() not in known:
            self._problems.append(f"{_label(name)} must be true or false")
        return known.get(text.lower(), default)

    def _number(self, name: str, default: float) -> float:
        value = self._extra.get(name)
        if value is None or value == "":
            return default
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if isinstance(value, bool) or not 0 < number < 1e6:
            self._problems.append(f"{_label(name)} must be a number above 0")
            return default
        return number


def _label(name: str) -> str:
    return next(field.label for field in EXTRA_FIELDS if field.name == name)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _clean(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

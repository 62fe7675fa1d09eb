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
from airflow_provider_cdm.client.settings import (
    Agency,
    Credentials,
    KeyCredentials,
    PasswordCredentials,
    Settings,
)

CONN_TYPE = "huaweicloud_cdm"
#: Connections made for apache-airflow-providers-huawei: login and password are a pair of keys.
KEYS_CONN_TYPE = "huaweicloud"


class ConnectionLike(Protocol):
    """What is needed of an Airflow connection."""

    conn_id: Any
    conn_type: Any
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
    :param secret: whether the form and Airflow's logs hide it.
    """

    name: str
    label: str
    description: str
    kind: str = "string"
    secret: bool = False


LABELS = {
    "login": "IAM User Name",
    "password": "IAM Password",
    "host": "CDM Endpoint",
    "schema": "Endpoint Scheme",
    "port": "Endpoint Port",
}
PLACEHOLDERS = {
    "login": "an IAM user with programmatic access; empty with an access key",
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
        "access_key", "Access Key", "Signs requests instead of user, password and account name."
    ),
    ExtraField("secret_key", "Secret Key", "Belongs to the access key.", secret=True),
    ExtraField(
        "security_token", "Security Token", "Comes with a temporary access key.", secret=True
    ),
    ExtraField(
        "agency_name", "Agency Name", "Agency of another account, to act in that account's project."
    ),
    ExtraField("agency_domain_name", "Agency Account Name", "Account that made the agency."),
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
    ExtraField(
        "token_cache",
        "Token Cache",
        "Folder in which the workers of a machine share IAM tokens, encrypted with Airflow's Fernet"
        " key. Empty: each process asks for its own.",
    ),
)


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
                "schema": {
                    "type": [field.kind, "null"],
                    **({"format": "password"} if field.secret else {}),
                },
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
        self._keys_in_login = getattr(connection, "conn_type", None) == KEYS_CONN_TYPE
        self._extra = self._read_extra(connection.extra)
        self._allow_http = self._flag("allow_http", default=False) is True

    def settings(self) -> Settings:
        region = self._text("region")
        host = _clean(self._connection.host)
        iam_host = self._text("iam_endpoint")
        project_id = self._text("project_id")
        if region is None and not (host and iam_host and project_id):
            self._missing("region", " (or CDM Endpoint, IAM Endpoint and Project ID together)")
        settings = Settings(
            cdm_endpoint=self._cdm_endpoint(host, region),
            iam_endpoint=self._endpoint(
                _label("iam_endpoint"), iam_host or f"https://iam.{region}.myhuaweicloud.com"
            ),
            credentials=self._credentials(),
            agency=self._agency(),
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
            token_cache=self._text("token_cache"),
        )
        if self._problems:
            raise CdmConfigError(
                f"The connection {self._connection.conn_id!r} cannot be used: "
                + "; ".join(self._problems)
                + "."
            )
        return settings

    def _credentials(self) -> Credentials:
        """Read those of the kinds of credentials that are filled in."""
        login, password = self._connection.login, self._connection.password
        if self._keys_in_login:
            return KeyCredentials(
                self._required(f"{_label('access_key')} (login)", login).strip(),
                self._required(f"{_label('secret_key')} (password)", password).strip(),
                self._text("security_token"),
            )
        if not any(self._text(name) for name in ("access_key", "secret_key", "security_token")):
            return PasswordCredentials(
                user=self._required(LABELS["login"], login),
                password=self._required(LABELS["password"], password),
                domain=self._required(_label("domain_name"), self._extra.get("domain_name")),
            )
        if login or password:
            self._problems.append(
                f"fill in either {LABELS['login']} and {LABELS['password']}, or"
                f" {_label('access_key')} and {_label('secret_key')}, not both"
            )
        return KeyCredentials(
            self._required(_label("access_key"), self._text("access_key")),
            self._required(_label("secret_key"), self._text("secret_key")),
            self._text("security_token"),
        )

    def _agency(self) -> Agency | None:
        name, domain = self._text("agency_name"), self._text("agency_domain_name")
        if name is None and domain is None:
            return None
        return Agency(
            self._required(_label("agency_name"), name),
            self._required(_label("agency_domain_name"), domain),
        )

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

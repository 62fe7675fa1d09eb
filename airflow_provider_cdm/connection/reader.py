"""The settings of a session, read from an Airflow connection and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from airflow_provider_cdm.client.errors import CdmConfigError
from airflow_provider_cdm.client.settings import (
    Agency,
    Credentials,
    KeyCredentials,
    PasswordCredentials,
    Settings,
)
from airflow_provider_cdm.connection import regions, urls
from airflow_provider_cdm.connection.fields import EXTRA_FIELDS, KEYS_CONN_TYPE, LABELS, label

#: Fields that are sent in a header or in the path of a request.
_IN_HEADERS = ("access_key", "security_token", "project_id", "cluster_id")


class ConnectionLike(Protocol):
    """The attributes of an Airflow connection that are read here."""

    conn_id: Any
    conn_type: Any
    host: Any
    schema: Any
    login: Any
    password: Any
    port: Any
    extra: Any


def settings_from(
    connection: ConnectionLike, defaults: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings that an Airflow connection holds.

    :param connection: the connection.
    :param defaults: what counts for fields of the extra that are empty.

    :raises CdmConfigError: when it cannot be used; names all missing and wrong fields, by label.
    """
    return _Reader(connection, defaults or {}).settings()


#: What the form of Airflow 2 has in place of a secret that is stored in the extra, and sends to the
#: test of the connection.
_HIDDEN = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"


class _Reader:
    """Reads one connection and collects what is wrong with it."""

    def __init__(self, connection: ConnectionLike, defaults: Mapping[str, Any]) -> None:
        self._connection = connection
        self._problems: list[str] = []
        self._keys_in_login = getattr(connection, "conn_type", None) == KEYS_CONN_TYPE
        given = self._read_extra(connection.extra)
        self._refuse_hidden(given)
        # The form writes empty fields as well.
        filled = {name: value for name, value in given.items() if value not in (None, "")}
        self._extra = {**given, **defaults, **filled}
        self._allow_http = self._flag("allow_http", default=False) is True

    def _refuse_hidden(self, given: Mapping[str, Any]) -> None:
        # A wrong secret counts: Huawei Cloud locks an access key after five of them.
        self._problems += [
            f"{field.label} is hidden in the form; to test it, enter it again"
            for field in EXTRA_FIELDS
            if given.get(field.name) == _HIDDEN
        ]

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
                label("iam_endpoint"), iam_host or self._default_endpoint("iam", region)
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
            console_url=self._console_url(),
            requests_per_minute=self._whole_number("requests_per_minute"),
            token_cache=self._text("token_cache"),
            conn_id=_clean(self._connection.conn_id),
        )
        if self._problems:
            raise CdmConfigError(
                f"The connection {self._connection.conn_id!r} cannot be used: "
                + "; ".join(self._problems)
                + "."
            )
        return settings

    def _credentials(self) -> Credentials:
        """Return the credentials that are filled in."""
        login, password = self._connection.login, self._connection.password
        if self._keys_in_login:
            return KeyCredentials(
                self._required(f"{label('access_key')} (login)", login).strip(),
                self._required(f"{label('secret_key')} (password)", password).strip(),
                self._text("security_token"),
            )
        if not any(self._text(name) for name in ("access_key", "secret_key", "security_token")):
            return PasswordCredentials(
                user=self._required(LABELS["login"], login),
                password=self._required(LABELS["password"], password),
                domain=self._required(label("domain_name"), self._extra.get("domain_name")),
            )
        if login or password:
            self._problems.append(
                f"fill in either {LABELS['login']} and {LABELS['password']}, or"
                f" {label('access_key')} and {label('secret_key')}, not both"
            )
        return KeyCredentials(
            self._required(label("access_key"), self._text("access_key")),
            self._required(label("secret_key"), self._text("secret_key")),
            self._text("security_token"),
        )

    def _agency(self) -> Agency | None:
        name, domain = self._text("agency_name"), self._text("agency_domain_name")
        if name is None and domain is None:
            return None
        return Agency(
            self._required(label("agency_name"), name),
            self._required(label("agency_domain_name"), domain),
        )

    def _read_extra(self, raw: Any) -> Mapping[str, Any]:
        if not raw:
            return {}
        try:
            extra = json.loads(raw) if isinstance(raw, str | bytes) else raw
        except (ValueError, RecursionError):
            extra = None
        if not isinstance(extra, Mapping):
            self._problems.append("Extra is not a JSON object")
            return {}
        return extra

    def _cdm_endpoint(self, host: str | None, region: str | None) -> str:
        if host is None:
            return self._default_endpoint("cdm", region)
        if "://" not in host:
            host = f"{_clean(self._connection.schema) or 'https'}://{host}"
        port = self._connection.port
        parts = urls.split(host)
        if port and parts.netloc.rpartition("]")[2].count(":") == 0:
            host = parts._replace(netloc=f"{parts.netloc}:{port}").geturl()
        return self._endpoint(LABELS["host"], host)

    def _default_endpoint(self, service: str, region: str | None) -> str:
        # Anything else would lead to another host.
        if region is not None and not re.fullmatch(r"[A-Za-z0-9-]{1,63}", region):
            self._problems.append(
                f"{label('region')} is part of the endpoints, so it may hold letters, digits and -"
                " only"
            )
            region = None
        return regions.endpoint(service, region)

    def _endpoint(self, name: str, url: str) -> str:
        parts = urls.split(url if "://" in url else f"https://{url}")
        host = urls.http_host(parts)
        if "@" in parts.netloc or parts.query or parts.fragment:
            self._problems.append(f"{name} must not hold a user, a query or a fragment")
        elif host is None or not urls.is_plain(url):
            self._problems.append(f"{name} is not an http or https address such as https://host")
        elif parts.scheme == "http" and not (self._allow_http or urls.is_loopback(host)):
            self._problems.append(
                f"{name} is plain HTTP, which would show the password to the network; use https,"
                f" or set {label('allow_http')} to true"
            )
        return parts.geturl().rstrip("/")

    def _proxy(self) -> str | None:
        value = self._text("proxy")
        if value is None:
            return None
        parts = urls.split(value)
        if urls.http_host(parts) is None or not urls.is_plain(value):
            self._problems.append(f"{label('proxy')} is not a URL such as http://proxy:3128")
        return value

    def _console_url(self) -> str | None:
        value = self._text("console_url")
        # It becomes the address of a button, where a browser would run "javascript:...".
        example = re.sub(r"\{\w+\}", "x", value or "https://x")
        if urls.http_host(urls.split(example)) is None:
            self._problems.append(f"{label('console_url')} is not an http or https address")
        return value

    def _text(self, name: str) -> str | None:
        value = self._extra.get(name)
        if value is not None and not isinstance(value, str):
            self._problems.append(f"{label(name)} must be text, not {type(value).__name__}")
            return None
        return self._sendable(label(name), _clean(value), in_header=name in _IN_HEADERS)

    def _sendable(self, name: str, value: str | None, *, in_header: bool) -> str | None:
        """Check the characters of a text, without showing it."""
        if value is None or (value.isascii() and value.isprintable()):
            return value
        if in_header:
            self._problems.append(
                f"{name} has characters that cannot be sent; only printable ASCII can"
            )
        elif re.search("[\x00-\x1f\x7f\ud800-\udfff]", value):
            self._problems.append(f"{name} has control characters or half characters")
        return value

    def _required(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            self._problems.append(f"{name} is missing")
            return ""
        in_header = name in (label("access_key"), f"{label('access_key')} (login)")
        return self._sendable(name, value, in_header=in_header) or ""

    def _missing(self, name: str, alternative: str = "") -> None:
        self._problems.append(f"{label(name)} is missing{alternative}")

    def _flag(self, name: str, *, default: bool) -> bool | str:
        value = self._extra.get(name)
        if value is None or value == "":
            return default
        if isinstance(value, bool):
            return value
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        text = str(value).strip()
        if name == "verify":
            if not isinstance(value, str | int):
                self._problems.append(f"{label(name)} must be true, false or the path of a file")
            return known.get(text.lower(), self._sendable(label(name), text, in_header=False) or "")
        if text.lower() not in known:
            self._problems.append(f"{label(name)} must be true or false")
        return known.get(text.lower(), default)

    def _number(self, name: str, default: float) -> float:
        value = self._extra.get(name)
        if value is None or value == "":
            return default
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = 0.0
        if isinstance(value, bool) or not 0 < number < 1e6:
            self._problems.append(f"{label(name)} must be a number above 0")
            return default
        return number

    def _whole_number(self, name: str) -> int | None:
        number = self._number(name, 0.0)
        if number == int(number):
            return int(number) or None
        self._problems.append(f"{label(name)} must be a whole number")
        return None


def _clean(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None

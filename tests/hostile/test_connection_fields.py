"""Connections that are filled in wrongly or with ill will: a typed error that shows no secret."""

from __future__ import annotations

import json
import traceback
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from airflow_provider_cdm.client.errors import CdmConfigError
from airflow_provider_cdm.client.settings import Settings
from airflow_provider_cdm.connection.fields import EXTRA_FIELDS
from airflow_provider_cdm.connection.reader import settings_from

SECRET = "s3cr3t-0f-this-connection"
EXTRA = {"region": "eu-west-101", "domain_name": "acme"}
KEYS = {"login": None, "password": None}


def read(extra: Any = None, /, **fields: Any) -> Settings:
    """Return the settings of a connection with these fields."""
    values = {
        **dict.fromkeys(("host", "schema", "port")),
        "conn_id": "cdm_default",
        "conn_type": "huaweicloud_cdm",
        "login": "someone",
        "password": "p",
        "extra": json.dumps({**EXTRA, **(extra or {})}),
    }
    return settings_from(SimpleNamespace(**{**values, **fields}))


SHOWN_SECRETS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a scheme with a typing error": ({}, {"host": f"htp://u:{SECRET}@host"}, "CDM Endpoint"),
    "a password without a user": ({}, {"host": f"https://:{SECRET}@host"}, "CDM Endpoint"),
    "a user without a password": ({}, {"host": f"https://{SECRET}@host"}, "CDM Endpoint"),
    "a host with a user": ({}, {"host": f"u:{SECRET}@host"}, "CDM Endpoint"),
    "two users": ({}, {"host": f"https://a@u:{SECRET}@host"}, "CDM Endpoint"),
    "a port that is none": ({}, {"host": f"https://host:{SECRET}"}, "CDM Endpoint"),
    "a backslash": ({}, {"host": f"https://host\\u:{SECRET}@other"}, "CDM Endpoint"),
    "an address in brackets": ({}, {"host": f"https://[u:{SECRET}@host"}, "CDM Endpoint"),
    "a query": ({}, {"host": f"https://host/?password={SECRET}"}, "CDM Endpoint"),
    "a fragment": ({}, {"host": f"https://host/#{SECRET}"}, "CDM Endpoint"),
    "no host": ({}, {"host": f"https:///{SECRET}"}, "CDM Endpoint"),
    "a blank": ({}, {"host": f"https://host/ {SECRET}"}, "CDM Endpoint"),
    "IAM's address": ({"iam_endpoint": f"ftp://u:{SECRET}@iam"}, {}, "IAM Endpoint"),
    "a proxy": ({"proxy": f"htp://u:{SECRET}@proxy"}, {}, "Proxy"),
    "a proxy with a bad port": ({"proxy": f"http://u:{SECRET}@proxy:x"}, {}, "Proxy"),
    "a security token with a line break": (
        {"access_key": "AK", "secret_key": "SK", "security_token": f"{SECRET}\r\nX: 1"},
        KEYS,
        "Security Token",
    ),
    "a security token with a letter that no header can carry": (
        {"access_key": "AK", "secret_key": "SK", "security_token": f"{SECRET}\u0142"},
        KEYS,
        "Security Token",
    ),
    "an access key with a blank of another kind": (
        {"access_key": f"{SECRET}\u200b", "secret_key": "SK"},
        KEYS,
        "Access Key",
    ),
    "half a character in a password": ({}, {"password": f"{SECRET}\ud800"}, "IAM Password"),
    "half a character in a secret key": (
        {"access_key": "AK", "secret_key": f"{SECRET}\ud800"},
        KEYS,
        "Secret Key",
    ),
    "a project with a line break": ({"project_id": f"{SECRET}\n0"}, {}, "Project ID"),
    "a cluster with a line break": ({"cluster_id": f"{SECRET}\n0"}, {}, "Cluster ID"),
    "a region that names another host": ({"region": f"{SECRET}.example/"}, {}, "Region"),
    "a script as the console": ({"console_url": f"javascript:{SECRET}"}, {}, "Console URL"),
    "data as the console": ({"console_url": f"data:text/html,{SECRET}"}, {}, "Console URL"),
    "a folder with NUL": ({"token_cache": f"/{SECRET}\x00"}, {}, "Token Cache"),
}


@pytest.mark.parametrize("what", SHOWN_SECRETS)
def test_errors_name_the_field_and_show_no_value(what: str) -> None:
    """A field that cannot be used is named by its label, and no part of its value is shown."""
    extra, fields, label = SHOWN_SECRETS[what]
    with pytest.raises(CdmConfigError, match=label) as caught:
        read(extra, **fields)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert SECRET not in shown


WRONG_TYPES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "brackets without an end": ({}, {"extra": "[" * 100_000}, "Extra"),
    "objects without an end": ({}, {"extra": '{"a":' * 100_000}, "Extra"),
    "objects in objects": ({}, {"extra": '{"a":' * 100_000 + "1" + "}" * 100_000}, "Extra"),
    "5,000 digits": ({}, {"extra": '{"read_timeout": %s}' % ("9" * 5_000)}, "Extra"),
    "a number": ({}, {"extra": 5}, "Extra"),
    "bytes": ({}, {"extra": b"\xff"}, "Extra"),
    "400 digits": ({"read_timeout": 10**400}, {}, "Read Timeout"),
    "400 digits below 0": ({"connect_timeout": -(10**400)}, {}, "Connect Timeout"),
    "400 digits as text": ({"read_timeout": "9" * 400}, {}, "Read Timeout"),
    "infinity": ({"read_timeout": float("inf")}, {}, "Read Timeout"),
    "infinity as text": ({"read_timeout": "inf"}, {}, "Read Timeout"),
    "no number": ({"read_timeout": float("nan")}, {}, "Read Timeout"),
    "a complex number": ({"read_timeout": "1j"}, {}, "Read Timeout"),
    "a list as seconds": ({"read_timeout": [1]}, {}, "Read Timeout"),
    "a truth as seconds": ({"read_timeout": True}, {}, "Read Timeout"),
    "infinite calls": ({"requests_per_minute": "inf"}, {}, "Requests per Minute"),
    "half a call": ({"requests_per_minute": 0.5}, {}, "Requests per Minute"),
    "400 digits of calls": ({"requests_per_minute": 10**400}, {}, "Requests per Minute"),
    "a list as certificates": ({"verify": ["x"]}, {}, "Verify TLS"),
    "an object as certificates": ({"verify": {}}, {}, "Verify TLS"),
    "NUL in the name of a file": ({"verify": "a\x00b"}, {}, "Verify TLS"),
    "half a character in it": ({"verify": "\ud800"}, {}, "Verify TLS"),
    "a list as a truth": ({"allow_http": []}, {}, "Allow Plain HTTP"),
    "an object as a region": ({"region": {"name": "x"}}, {}, "Region"),
    "a port of 30 digits": ({}, {"host": "h", "port": 10**30}, "CDM Endpoint"),
    "a port below 0": ({}, {"host": "h", "port": -1}, "CDM Endpoint"),
    "a proxy's port of 99999": ({"proxy": "http://h:99999"}, {}, "Proxy"),
    "a proxy of another kind": ({"proxy": "socks5://h:1"}, {}, "Proxy"),
    "a proxy with a zone": ({"proxy": "http://[fe80::1%25eth0]:1"}, {}, "Proxy"),
}


@pytest.mark.parametrize("what", WRONG_TYPES)
def test_values_of_other_types(what: str) -> None:
    """A value of another type or size than its field takes is an error that names the field."""
    extra, fields, label = WRONG_TYPES[what]
    with pytest.raises(CdmConfigError, match=label):
        read(extra, **fields)


@pytest.mark.parametrize(
    "url", ["https://{region}.example/{job_name}", "http://127.0.0.1:1/_sim/ui?{submission_id}"]
)
def test_console_urls_with_placeholders(url: str) -> None:
    """An http or https address with placeholders is accepted as it is."""
    assert read({"console_url": url}).console_url == url


_TEXTS = st.text(max_size=12) | st.sampled_from(
    ["http://", "https://[", "//", "@", "\x00", "\ud800", "1e999", "-1", "nan", "9" * 400, "true"]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS,
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(_TEXTS, inside, max_size=2),
    max_leaves=4,
)
_NAMES = st.sampled_from([field.name for field in EXTRA_FIELDS])


@pytest.mark.long
@given(
    extra=st.dictionaries(_NAMES | st.text(max_size=3), _VALUES, max_size=5),
    fields=st.dictionaries(
        st.sampled_from(["host", "schema", "port", "login", "password", "conn_type"]), _VALUES
    ),
    raw=st.none() | _TEXTS | st.binary(max_size=5) | st.integers(),
)
@options(derandomize=True, max_examples=400)
def test_any_field(extra: dict[str, Any], fields: dict[str, Any], raw: Any) -> None:
    """Whatever the fields hold, there are settings or an error of the configuration."""
    if raw is not None:
        fields["extra"] = raw
    try:
        settings = read(extra, **fields)
    except CdmConfigError:
        return
    for text in (settings.cdm_endpoint, settings.iam_endpoint, settings.project_id or ""):
        assert text.isascii()
        assert text.isprintable()

"""The connection: its fields, its form, and the errors that name them."""

from __future__ import annotations

import importlib.util
import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_cdm import get_provider_info
from airflow_provider_cdm.client.errors import CdmConfigError
from airflow_provider_cdm.client.settings import Agency, KeyCredentials, Settings
from airflow_provider_cdm.connection.fields import EXTRA_FIELDS
from airflow_provider_cdm.connection.reader import settings_from
from airflow_provider_cdm.hooks import CdmHook

EXTRA = {"region": "eu-west-101", "domain_name": "acme"}
PASSWORD = "correct-horse-battery"


def settings(extra: dict[str, Any] | str | None = None, **fields: Any) -> Settings:
    """Make settings of a connection."""
    text = extra if isinstance(extra, str) else json.dumps({**EXTRA, **(extra or {})})
    values = {
        **dict.fromkeys(("host", "schema", "port")),
        "conn_id": "cdm_default",
        "login": "someone",
        "password": PASSWORD,
        "extra": text,
    }
    return settings_from(SimpleNamespace(**{**values, **fields}))


def test_defaults_come_from_the_region() -> None:
    """Region, user, password and account are enough."""
    made = settings()
    assert made.cdm_endpoint == "https://cdm.eu-west-101.myhuaweicloud.com"
    assert made.iam_endpoint == "https://iam.eu-west-101.myhuaweicloud.com"
    assert (made.project_id, made.project_name) == (None, "eu-west-101")
    assert (made.verify, made.connect_timeout, made.read_timeout) == (True, 10.0, 60.0)


@pytest.mark.parametrize(
    ("fields", "endpoint"),
    [
        ({"host": "cdm.example.eu"}, "https://cdm.example.eu"),
        ({"host": "cdm.example.eu", "port": 8443}, "https://cdm.example.eu:8443"),
        ({"host": "https://cdm.example.eu/"}, "https://cdm.example.eu"),
        ({"host": "https://gw.example.eu/cdm/"}, "https://gw.example.eu/cdm"),
        ({"host": "https://cdm.example.eu:9", "port": 8443}, "https://cdm.example.eu:9"),
        ({"host": "127.0.0.1", "schema": "http", "port": 80}, "http://127.0.0.1:80"),
        ({"host": "http://localhost:5000"}, "http://localhost:5000"),
        ({"host": "http://[::1]:5000"}, "http://[::1]:5000"),
        ({"host": "http://[::1]", "port": 5000}, "http://[::1]:5000"),
        ({"host": " cdm.example.eu "}, "https://cdm.example.eu"),
    ],
)
def test_endpoint(fields: dict[str, Any], endpoint: str) -> None:
    """Host may be bare or a URL; scheme and port may stand in their own fields."""
    assert settings(**fields).cdm_endpoint == endpoint


def test_other_clouds_need_no_region() -> None:
    """With both endpoints and a project id, the region is not needed."""
    extra = {"domain_name": "acme", "iam_endpoint": "https://iam.example.eu", "project_id": "0f"}
    made = settings(json.dumps(extra), host="cdm.example.eu")
    assert (made.iam_endpoint, made.project_id) == ("https://iam.example.eu", "0f")


def test_all_missing_fields_are_named_at_once() -> None:
    """One error names every missing field by the label that the form shows."""
    with pytest.raises(CdmConfigError) as error:
        settings("", login=None, password=None)
    for label in ("IAM User Name", "IAM Password", "Region", "Account Name", "cdm_default"):
        assert label in str(error.value)


@pytest.mark.parametrize(
    ("extra", "fields", "words"),
    [
        ("not json", {}, "not a JSON object"),
        ("[1]", {}, "not a JSON object"),
        ({}, {"host": "http://cdm.example.eu"}, "plain HTTP"),
        ({"iam_endpoint": "http://iam.example.eu"}, {}, "IAM Endpoint is plain HTTP"),
        ({}, {"host": "ftp://cdm.example.eu"}, "not an http or https address"),
        ({}, {"host": "https://"}, "not an http or https address"),
        ({}, {"host": "http://["}, "not an http or https address"),
        ({}, {"host": "https://cdm.example.eu:nine"}, "not an http or https address"),
        ({}, {"host": f"https://u:{PASSWORD}@cdm.example.eu"}, "must not hold a user"),
        ({}, {"host": "https://cdm.example.eu?x=1"}, "must not hold a user, a query"),
        ({"read_timeout": "soon"}, {}, "Read Timeout must be a number above 0"),
        ({"connect_timeout": -1}, {}, "Connect Timeout must be a number above 0"),
        ({"requests_per_minute": 0}, {}, "Requests per Minute must be a number above 0"),
        ({"allow_http": "perhaps"}, {}, "Allow Plain HTTP must be true or false"),
        ({"project_id": 12}, {}, "Project ID must be text"),
        (
            {"access_key": "AK", "secret_key": "SK"},
            {},
            "Password, or Access Key and Secret Key, not",
        ),
        ({"secret_key": "SK"}, {"login": None, "password": None}, "Access Key is missing"),
        ({"access_key": "AK"}, {"login": None, "password": None}, "Secret Key is missing"),
        ({"security_token": "ST"}, {"login": None, "password": None}, "Access Key is missing"),
        ({"agency_name": "a"}, {}, "Agency Account Name is missing"),
        ({"agency_domain_name": "a"}, {}, "Agency Name is missing"),
        ({"agency_name": 7}, {}, "Agency Name must be text"),
        ({}, {"conn_type": "huaweicloud", "login": None}, "Access Key (login) is missing"),
        ({}, {"conn_type": "huaweicloud", "password": ""}, "Secret Key (password) is missing"),
        ({"proxy": f"http://u:{PASSWORD}@"}, {}, "Proxy is not a URL"),
        ({"proxy": "proxy:3128"}, {}, "Proxy is not a URL"),
    ],
)
def test_wrong_fields_are_named(extra: Any, fields: dict[str, Any], words: str) -> None:
    """A field that cannot work is named, and the password is not shown."""
    with pytest.raises(CdmConfigError) as error:
        settings(extra, **fields)
    assert words in str(error.value)
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(False, False), ("false", False), (True, True), ("/etc/ca.pem", "/etc/ca.pem"), ("", True)],
)
def test_verify(value: Any, expected: Any) -> None:
    """Certificates are checked by default; a path names a CA bundle."""
    assert settings({"verify": value}).verify == expected


def test_plain_http_can_be_allowed() -> None:
    """Whoever insists may talk without TLS beyond this machine."""
    made = settings({"allow_http": True}, host="http://cdm.example.eu")
    assert made.cdm_endpoint == "http://cdm.example.eu"


def test_numbers_may_be_text() -> None:
    """A connection given as a URI has only text in its extra."""
    made = settings({"read_timeout": "7.5", "requests_per_minute": "60"})
    assert (made.read_timeout, made.requests_per_minute) == (7.5, 60)


def test_settings_show_no_secret() -> None:
    """Neither the settings nor their credentials show the password."""
    made = settings({"proxy": "http://u:proxy-word@proxy:3128"})
    assert PASSWORD not in f"{made!r} {made} {made.credentials!r}"
    assert "proxy-word" not in repr(made)


def test_keys() -> None:
    """Access keys need neither user nor password nor account name."""
    given = {"region": "eu-west-101", "access_key": " AK ", "secret_key": "SK\n"}
    made = settings(json.dumps(given), login=None, password=None)
    assert made.credentials == KeyCredentials("AK", "SK")
    made = settings(json.dumps({**given, "security_token": "ST"}), login="", password=None)
    assert made.credentials == KeyCredentials("AK", "SK", "ST")


def test_connection_of_the_other_provider() -> None:
    """A connection made for apache-airflow-providers-huawei is read as that provider reads it."""
    extra = {"region": "cn-north-4", "project_id": "0f", "obs_bucket": "b"}
    made = settings(json.dumps(extra), conn_type="huaweicloud", login="AK", password="SK")
    assert made.credentials == KeyCredentials("AK", "SK")
    assert (made.region, made.project_id) == ("cn-north-4", "0f")
    assert made.cdm_endpoint == "https://cdm.cn-north-4.myhuaweicloud.com"


@pytest.mark.parametrize("login", ["user", None])
def test_agency(login: str | None) -> None:
    """An agency comes on top of a password or of keys."""
    extra = {"agency_name": "migrations", "agency_domain_name": "partner"}
    if login is None:
        extra |= {"access_key": "AK", "secret_key": "SK"}
    made = settings(extra, login=login, password=login and PASSWORD)
    assert made.agency == Agency("migrations", "partner")


SECRETS = ["secret_key", "security_token"]


def test_form_of_airflow_3() -> None:
    """Provider info describes every extra field, with a label and without a default."""
    fields = get_provider_info()["connection-types"][0]["conn-fields"]
    assert list(fields) == [field.name for field in EXTRA_FIELDS]
    assert all("default" not in field["schema"] for field in fields.values())
    hidden = [name for name, field in fields.items() if field["schema"].get("format")]
    assert hidden == SECRETS


@pytest.mark.skipif(
    importlib.util.find_spec("flask_appbuilder") is None, reason="the form of Airflow 2"
)
def test_form_of_airflow_2() -> None:
    """The hook's widgets are the same fields."""
    widgets = CdmHook.get_connection_form_widgets()
    assert list(widgets) == [field.name for field in EXTRA_FIELDS]
    assert [name for name, one in widgets.items() if "Password" in str(one.field_class)] == SECRETS
    assert CdmHook.get_ui_field_behaviour()["relabeling"]["login"] == "IAM User Name"

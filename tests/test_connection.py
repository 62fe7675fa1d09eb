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


def read_settings(extra: dict[str, Any] | str | None = None, **fields: Any) -> Settings:
    """Return the settings of a connection with these fields."""
    text = extra if isinstance(extra, str) else json.dumps({**EXTRA, **(extra or {})})
    values = {
        **dict.fromkeys(("host", "schema", "port")),
        "conn_id": "cdm_default",
        "login": "someone",
        "password": PASSWORD,
        "extra": text,
    }
    return settings_from(SimpleNamespace(**{**values, **fields}))


def test_endpoints_and_project_default_to_the_region() -> None:
    """Region, user, password and account are sufficient."""
    settings = read_settings()
    assert settings.cdm_endpoint == "https://cdm.eu-west-101.myhuaweicloud.eu"
    assert settings.iam_endpoint == "https://iam.eu-west-101.myhuaweicloud.eu"
    assert (settings.project_id, settings.project_name) == (None, "eu-west-101")
    assert (settings.verify, settings.connect_timeout, settings.read_timeout) == (True, 10.0, 60.0)


@pytest.mark.parametrize(
    ("region", "suffix"),
    [
        ("eu-west-101", "myhuaweicloud.eu"),
        ("eu-west-109", "myhuaweicloud.eu"),
        ("eu-de", "otc.t-systems.com"),
        ("cn-north-4", "myhuaweicloud.com"),
        ("ap-southeast-3", "myhuaweicloud.com"),
        ("tr-west-1", "myhuaweicloud.com"),
        ("eu-west-0", "myhuaweicloud.com"),
        ("EU-West-101", "myhuaweicloud.eu"),
    ],
)
def test_hosts_of_a_region(region: str, suffix: str) -> None:
    """Each region has its hosts of CDM and IAM, so that a connection needs no endpoints."""
    settings = read_settings({"region": region})
    assert settings.cdm_endpoint == f"https://cdm.{region}.{suffix}"
    assert settings.iam_endpoint == f"https://iam.{region}.{suffix}"


def test_other_iam_host_of_dublin() -> None:
    """IAM's other documented host replaces that of the region, and nothing else."""
    settings = read_settings({"iam_endpoint": "iam.myhuaweicloud.eu"})
    assert settings.iam_endpoint == "https://iam.myhuaweicloud.eu"
    assert settings.cdm_endpoint == "https://cdm.eu-west-101.myhuaweicloud.eu"
    assert settings.project_name == "eu-west-101"


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
def test_endpoint_may_be_a_host_or_a_url(fields: dict[str, Any], endpoint: str) -> None:
    """The host may be a host name or a URL, and scheme and port may be in fields of their own."""
    assert read_settings(**fields).cdm_endpoint == endpoint


def test_region_is_optional_with_endpoints_and_project() -> None:
    """With both endpoints and a project ID, the region is not needed."""
    extra = {"domain_name": "acme", "iam_endpoint": "https://iam.example.eu", "project_id": "0f"}
    settings = read_settings(json.dumps(extra), host="cdm.example.eu")
    assert (settings.iam_endpoint, settings.project_id) == ("https://iam.example.eu", "0f")


@pytest.mark.parametrize(
    "fields", [{"login": "u"}, {"password": "p"}, {"login": "u", "password": "p"}]
)
def test_keys_and_a_user_are_too_much(fields: dict[str, str]) -> None:
    """Next to access keys, neither a user nor a password may be filled in."""
    extra = '{"access_key": "AK", "secret_key": "SK", "region": "eu-west-101"}'
    with pytest.raises(CdmConfigError, match="not both"):
        read_settings(extra, **{"login": None, "password": None, **fields})


def test_one_error_names_all_missing_fields() -> None:
    """One error names every missing field by the label in the form."""
    with pytest.raises(CdmConfigError) as error:
        read_settings("", login=None, password=None)
    for label in ("IAM User Name", "IAM Password", "Region", "Account Name", "cdm_default"):
        assert label in str(error.value)


@pytest.mark.parametrize(
    ("extra", "fields", "message"),
    [
        ("not json", {}, "not a JSON object"),
        ("[1]", {}, "not a JSON object"),
        ({}, {"host": "http://cdm.example.eu"}, "or set Allow Plain HTTP to true"),
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
        ({"requests_per_minute": 0.5}, {}, "Requests per Minute must be a whole number"),
        ({"requests_per_minute": "90.5"}, {}, "Requests per Minute must be a whole number"),
        ({"requests_per_minute": "nan"}, {}, "Requests per Minute must be a number above 0"),
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
        ({"proxy": "httpfoo://proxy:3128"}, {}, "Proxy is not a URL"),
        ({"proxy": "socks5://proxy:1080"}, {}, "Proxy is not a URL"),
        ({"proxy": "http://proxy:99999"}, {}, "Proxy is not a URL"),
        ({"proxy": "http://proxy:0"}, {}, "Proxy is not a URL"),
    ],
)
def test_error_names_the_invalid_field_without_secrets(
    extra: Any, fields: dict[str, Any], message: str
) -> None:
    """The error names the invalid field and does not show the password."""
    with pytest.raises(CdmConfigError) as error:
        read_settings(extra, **fields)
    assert message in str(error.value)
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(False, False), ("false", False), (True, True), ("/etc/ca.pem", "/etc/ca.pem"), ("", True)],
)
def test_verify_is_a_flag_or_a_path(value: Any, expected: Any) -> None:
    """Certificates are verified by default, and a path names a CA bundle."""
    assert read_settings({"verify": value}).verify == expected


def test_plain_http_can_be_allowed() -> None:
    """``allow_http`` permits plain HTTP to other machines."""
    settings = read_settings({"allow_http": True}, host="http://cdm.example.eu")
    assert settings.cdm_endpoint == "http://cdm.example.eu"


def test_numbers_may_be_text() -> None:
    """Numbers may be text, since the extra of a connection in URI form holds only text."""
    settings = read_settings({"read_timeout": "7.5", "requests_per_minute": "60"})
    assert (settings.read_timeout, settings.requests_per_minute) == (7.5, 60)


def test_representation_of_settings_shows_no_secret() -> None:
    """Neither the settings nor their credentials show a password."""
    settings = read_settings({"proxy": "http://u:proxy-word@proxy:3128"})
    assert PASSWORD not in f"{settings!r} {settings} {settings.credentials!r}"
    assert "proxy-word" not in repr(settings)


def test_access_keys_need_no_user() -> None:
    """Access keys need neither user nor password nor account name."""
    extra = {"region": "eu-west-101", "access_key": " AK ", "secret_key": "SK\n"}
    settings = read_settings(json.dumps(extra), login=None, password=None)
    assert settings.credentials == KeyCredentials("AK", "SK")
    settings = read_settings(json.dumps({**extra, "security_token": "ST"}), login="", password=None)
    assert settings.credentials == KeyCredentials("AK", "SK", "ST")


def test_connection_of_the_huawei_provider_is_accepted() -> None:
    """A connection made for apache-airflow-providers-huawei is read as that provider reads it."""
    extra = {"region": "cn-north-4", "project_id": "0f", "obs_bucket": "b"}
    settings = read_settings(json.dumps(extra), conn_type="huaweicloud", login="AK", password="SK")
    assert settings.credentials == KeyCredentials("AK", "SK")
    assert (settings.region, settings.project_id) == ("cn-north-4", "0f")
    assert settings.cdm_endpoint == "https://cdm.cn-north-4.myhuaweicloud.com"


@pytest.mark.parametrize("login", ["user", None])
def test_agency_works_with_password_and_keys(login: str | None) -> None:
    """An agency may be combined with a password or with access keys."""
    extra = {"agency_name": "migrations", "agency_domain_name": "partner"}
    if login is None:
        extra |= {"access_key": "AK", "secret_key": "SK"}
    settings = read_settings(extra, login=login, password=login and PASSWORD)
    assert settings.agency == Agency("migrations", "partner")


SECRETS = ["secret_key", "security_token"]


def test_provider_info_describes_every_form_field() -> None:
    """The provider info describes every extra field, with a label and without a default."""
    fields = get_provider_info()["connection-types"][0]["conn-fields"]
    assert list(fields) == [field.name for field in EXTRA_FIELDS]
    assert all("default" not in field["schema"] for field in fields.values())
    hidden = [name for name, field in fields.items() if field["schema"].get("format")]
    assert hidden == SECRETS


@pytest.mark.skipif(
    importlib.util.find_spec("flask_appbuilder") is None, reason="the form of Airflow 2"
)
def test_form_widgets_are_the_same_fields() -> None:
    """The widgets of the hook are the same fields."""
    widgets = CdmHook.get_connection_form_widgets()
    assert list(widgets) == [field.name for field in EXTRA_FIELDS]
    assert [
        name for name, widget in widgets.items() if "Password" in str(widget.field_class)
    ] == SECRETS
    assert CdmHook.get_ui_field_behaviour()["relabeling"]["login"] == "IAM User Name"


def test_defaults_of_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that a connection leaves empty have the values of the section [cdm] of airflow.cfg."""
    extra = {**EXTRA, "read_timeout": "", "connect_timeout": 7, "proxy": None}
    text = json.dumps({"conn_type": "huaweicloud_cdm", "login": "u", "password": "p"})
    connection = {**json.loads(text), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    for name, value in {
        "READ_TIMEOUT": "33",
        "CONNECT_TIMEOUT": "3",
        "PROXY": "http://proxy:3128",
        "REQUESTS_PER_MINUTE": "50",
        "VERIFY": "false",
        "TOKEN_CACHE": "",
    }.items():
        monkeypatch.setenv(f"AIRFLOW__CDM__{name}", value)
    settings = CdmHook().get_conn().settings
    assert (settings.read_timeout, settings.connect_timeout) == (33.0, 7.0)
    assert (settings.proxy, settings.requests_per_minute) == ("http://proxy:3128", 50)
    assert (settings.verify, settings.token_cache) == (False, None)


def test_an_invalid_default_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A default that cannot be used is an error as in the connection, by the field's label."""
    connection = {"conn_type": "huaweicloud_cdm", "login": "u", "password": "p", "extra": EXTRA}
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__CDM__READ_TIMEOUT", "soon")
    with pytest.raises(CdmConfigError, match="Read Timeout must be a number"):
        CdmHook().get_conn()

"""The fields of the connection ``huaweicloud_cdm`` and its form.

The fields are declared once, here. The form of Airflow 3 (provider info), the form of Airflow 2
(hook methods) and every message about a field are made from this declaration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_provider_cdm.connection import CONFIG_SECTION

CONN_TYPE = "huaweicloud_cdm"
#: What the form calls it.
CONN_TYPE_NAME = "Huawei Cloud CDM"
#: Connections made for apache-airflow-providers-huawei: login and password are a pair of keys.
KEYS_CONN_TYPE = "huaweicloud"


@dataclass(frozen=True, slots=True)
class ExtraField:
    """A field of the connection's extra.

    :param kind: JSON Schema type of the field in the form.
    :param secret: whether the form and Airflow's logs hide its value.
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
    "host": "leave empty for the host of the region",
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
        "Empty: the host of the region, such as https://iam.cn-north-4.myhuaweicloud.com.",
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
    ExtraField(
        "read_timeout", "Read Timeout", "Seconds without an answer. By default 60.", "number"
    ),
    ExtraField(
        "console_url",
        "Console URL",
        "Where the CDM run link leads; may hold {region}, {project_id}, {cluster_id}, {job_name}"
        " and {submission_id}.",
    ),
    ExtraField(
        "requests_per_minute",
        "Requests per Minute",
        "Calls of one kind that this user may make in a minute. By default 100.",
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


#: Fields of the extra that have a default in ``airflow.cfg``, with the type and an example of the
#: option.
CONFIG_FIELDS = {
    "verify": ("string", "/etc/ssl/certs/company.pem"),
    "proxy": ("string", "http://proxy:3128"),
    "connect_timeout": ("float", "10"),
    "read_timeout": ("float", "60"),
    "console_url": ("string", "https://console.huaweicloud.com/cdm/?region={region}"),
    "requests_per_minute": ("integer", "100"),
    "token_cache": ("string", "/var/lib/airflow/cdm-tokens"),
}


def config_metadata() -> dict[str, Any]:
    """Return the section of ``airflow.cfg`` as provider info describes it."""
    fields = {field.name: field for field in EXTRA_FIELDS}
    options = {
        name: _option(f"{fields[name].label}: {fields[name].description}", kind, example)
        for name, (kind, example) in CONFIG_FIELDS.items()
    }
    # The URL of a proxy may hold a password.
    options["proxy"]["sensitive"] = True
    options["poll_interval"] = _option(
        "Seconds between two polls of a run or a cluster, for operators without poll_interval (by"
        " default 30) and sensors without poke_interval (by default 60).",
        *("float", "60"),
    )
    return {
        CONFIG_SECTION: {
            "description": "Defaults for fields that a connection of type huaweicloud_cdm leaves"
            " empty, and for the arguments of tasks.",
            "options": options,
        }
    }


def _option(description: str, kind: str, example: str) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": None,
    }


def form_metadata() -> dict[str, Any]:
    """Return the form as provider info describes it to Airflow 3."""
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


def label(name: str) -> str:
    """Return the label of a field of the extra."""
    return next(field.label for field in EXTRA_FIELDS if field.name == name)

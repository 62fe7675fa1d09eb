"""Apache Airflow provider for Huawei Cloud CDM (Cloud Data Migration)."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """Describe this provider to Airflow; called in every Airflow process, so it stays light.

    :returns: a dictionary in the form of Airflow's ``provider_info.schema.json``.
    """
    from airflow_provider_cdm.connection.fields import CONN_TYPE, config_metadata, form_metadata

    integration = "Huawei Cloud CDM"
    package = "airflow_provider_cdm"
    return {
        "package-name": "airflow-provider-cdm",
        "name": integration,
        "description": "Start `Huawei Cloud CDM <https://www.huaweicloud.com/intl/en-us/product/"
        "cdm.html>`__ migrations exactly once, and wait for them.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://support.huaweicloud.com/intl/en-us/cdm/",
                "logo": "/docs/images/logo.svg",
                "how-to-guide": [
                    "/docs/quickstart.md",
                    "/docs/scheduling.md",
                    "/docs/operators/index.md",
                ],
                "tags": ["service"],
            }
        ],
        "operators": [
            {"integration-name": integration, "python-modules": [f"{package}.operators"]}
        ],
        "sensors": [{"integration-name": integration, "python-modules": [f"{package}.sensors"]}],
        "hooks": [{"integration-name": integration, "python-modules": [f"{package}.hooks"]}],
        "triggers": [{"integration-name": integration, "python-modules": [f"{package}.triggers"]}],
        # Named in Airflow's schemas from 3.4 on; older versions pass over it.
        "retry-policies": [
            {"integration-name": integration, "python-modules": [f"{package}.retry_policy"]}
        ],
        "connection-types": [
            {
                "connection-type": CONN_TYPE,
                "hook-class-name": f"{package}.hooks.CdmHook",
                "hook-name": integration,
                **form_metadata(),
            }
        ],
        "extra-links": [f"{package}.links.CdmRunLink"],
        "config": config_metadata(),
        "cli": [f"{package}.cli.definition.get_airflow_commands"],
    }

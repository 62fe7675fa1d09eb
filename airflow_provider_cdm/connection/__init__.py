"""The connection ``huaweicloud_cdm``: its fields, its form, and the settings that it holds."""

__all__ = ["CONFIG_SECTION", "DEFAULT_CONN_ID", "fields", "reader"]

#: Id of the connection that is used where none is named.
DEFAULT_CONN_ID = "cdm_default"
#: Section of ``airflow.cfg`` with defaults for the connections and tasks of a deployment.
CONFIG_SECTION = "cdm"

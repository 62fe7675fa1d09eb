"""The connection ``huaweicloud_cdm``: its fields, its form, its settings, and its look-up."""

__all__ = ["CONFIG_SECTION", "DEFAULT_CONN_ID", "fields", "lookup", "reader"]

#: Id of the connection that is used where none is named.
DEFAULT_CONN_ID = "cdm_default"
#: Section of ``airflow.cfg`` with defaults for the connections and tasks of a deployment.
CONFIG_SECTION = "cdm"

"""An Airflow connection without Airflow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Conn:
    """The fields of an Airflow connection that settings are read from."""

    conn_id: str = "cdm_default"
    conn_type: str = "huaweicloud_cdm"
    host: str | None = None
    schema: str | None = None
    login: str | None = None
    password: str | None = None
    port: int | None = None
    extra: str | None = None

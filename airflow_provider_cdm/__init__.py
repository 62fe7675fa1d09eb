"""Apache Airflow provider for Huawei Cloud CDM (Cloud Data Migration)."""

from __future__ import annotations

__version__ = "0.1.0"

"""The base of the sensors: deferral, time-outs and ``soft_fail``."""

from __future__ import annotations

from typing import NoReturn

from airflow_provider_cdm._compat import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
)
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.tasks.base import DeferrableCdmTask


class CdmSensor(DeferrableCdmTask, BaseSensorOperator):
    """Base of the sensors of this package.

    :param deferrable: wait in the triggerer. ``poke_interval`` and ``timeout`` mean the same there.
    """

    ui_color = "#e3ecf4"

    def _skip_if_soft(self, error: errors.CdmError) -> None:
        """Skip the task instead of failing it, if ``soft_fail`` or ``never_fail`` says so.

        :raises AirflowSkipException: with the error as its cause.
        """
        if self.soft_fail or getattr(self, "never_fail", False):
            raise AirflowSkipException(f"Skipped because of soft_fail: {error}") from error

    def _time_out(self, error: errors.CdmWaitTimeout) -> NoReturn:
        """End a deferred wait that reached ``timeout``, as Airflow ends one in poke mode."""
        self._skip_if_soft(error)
        raise AirflowSensorTimeout(str(error)) from None  # it says the same

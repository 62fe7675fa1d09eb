"""The exported names of the client's packages."""

from __future__ import annotations

import pkgutil
from types import ModuleType

import pytest

from airflow_provider_cdm import client
from airflow_provider_cdm.client import auth, http


@pytest.mark.parametrize("package", [client, auth, http], ids=lambda package: package.__name__)
def test_exported_names(package: ModuleType) -> None:
    """``__all__`` lists every module of a package."""
    assert package.__all__ == sorted(info.name for info in pkgutil.iter_modules(package.__path__))

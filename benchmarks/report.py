"""Writes the tables into README.md, between marks that name the benchmark."""

from __future__ import annotations

import re
from typing import Any

from benchmarks.common import HERE, Result

README = HERE / "README.md"


def write(modules: dict[int, Any]) -> None:
    """Put the kept results into their places.

    :param modules: of the benchmarks, by number.
    """
    text = README.read_text()
    for number, module in modules.items():
        result = Result.load(number)
        shown = "Not measured yet."
        if result is not None:
            shown = f"{module.tables(result)}\n\n{_circumstances(result.facts)}"
        marks = rf"(<!-- results {number} -->\n).*?(<!-- end -->)"
        text = re.sub(marks, lambda found, new=shown: f"{found[1]}\n{new}\n\n{found[2]}", text, flags=re.DOTALL)
    README.write_text(text)


def _circumstances(facts: dict[str, Any]) -> str:
    return (
        f"{facts['date']}, Airflow {facts['apache-airflow']}, Python {facts['python']},"
        f" {facts['cpus']} CPUs; load average {facts['load_before']} before and"
        f" {facts['load_after']} after; {facts['seconds']} s."
    )

"""Writes tables into README.md, between markers with the name of the benchmark."""

from __future__ import annotations

from typing import Any

from benchmarks.common import HERE, Result, table

README = HERE / "README.md"


def write(modules: dict[str, Any]) -> None:
    """Write the tables of all saved results.

    :param modules: modules of the benchmarks by name.
    """
    text = README.read_text()
    goals: list[tuple[str, str]] = []
    for name, module in modules.items():
        result = Result.load(name)
        if result is None:
            text = _put(text, name, "Not measured yet.")
            continue
        text = _put(text, name, f"{module.tables(result)}\n\n{_facts_line(result.facts)}")
        if hasattr(module, "goals"):
            goals += module.goals(result)
    README.write_text(_put(text, "goals", table(("goal", "result"), goals)))


def _put(text: str, name: str, content: str) -> str:
    begin = f"<!-- results {name} -->\n"
    before, _, rest = text.partition(begin)
    _, end, after = rest.partition("<!-- end -->")
    return f"{before}{begin}\n{content}\n\n{end}{after}"


def _facts_line(facts: dict[str, Any]) -> str:
    return (
        f"{facts['date']}, Airflow {facts['apache-airflow']}, Python {facts['python']},"
        f" {facts['cpus']} cores; load average {facts['load_before']} before and"
        f" {facts['load_after']} after; {facts['seconds']:,} s."
    )

"""Draws plots for the docs: calls and delay against the number of waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl

from benchmarks.common import HERE, QUOTA, Result
from benchmarks.waits import GOAL_DELAY

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

IMAGES = HERE.parent / "docs" / "images"
SIDES = {
    "polling": ("one poll for each wait", "#c0392b", "s"),
    "ours": ("this provider", "#1f6fb2", "o"),
}


def draw() -> None:
    """Write the plots, if there is a saved result."""
    result = Result.load("waits")
    if result is None:
        return
    mpl.rcParams |= {"svg.hashsalt": "benchmarks", "font.size": 11, "svg.fonttype": "path"}
    _draw(
        "waits-calls.svg",
        "Calls a minute",
        result,
        lambda row: row["calls_per_minute"],
        (QUOTA, "of each kind CDM answers"),
    )
    _draw(
        "waits-delay.svg",
        "Seconds from the end of a run\nuntil it is seen (95 of 100)",
        result,
        lambda row: row["delay"][1],
        (GOAL_DELAY, "a minute"),
    )


def _draw(
    name: str,
    label: str,
    result: Result,
    value: Callable[[dict[str, Any]], float],
    reference: tuple[float, str],
) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), facecolor="white")
    for side, (side_label, color, marker) in SIDES.items():
        rows = [row for row in _mixed(result) if row["side"] == side]
        # Points of which only a lower bound is known are not connected with the others.
        lower_bounds = [row for row in rows if row["unseen"] and "delay" in name]
        known = [(row["waits"], value(row)) for row in rows if row not in lower_bounds]
        axes.plot(*zip(*known, strict=True), marker=marker, color=color, label=side_label)
        for row in rows:
            point = (row["waits"], value(row))
            if row in lower_bounds:
                axes.plot(*point, marker="^", color=color, markerfacecolor="white")
            text = f"{'> ' if row in lower_bounds else ''}{point[1]:,.0f}"
            offset = {"xytext": (0, 8 if side == "polling" else -18), "ha": "center"}
            axes.annotate(text, point, color=color, textcoords="offset points", **offset)
    axes.axhline(reference[0], color="#888888", linestyle="--", linewidth=1)
    axes.text(
        20, reference[0] * 1.08, f"{reference[0]:g}: {reference[1]}", color="#555555", fontsize=9
    )
    axes.set(xscale="log", yscale="log", xlabel="Waits at a time", ylabel=label)
    axes.set_xticks(sorted({row["waits"] for row in _mixed(result)}), minor=False)
    axes.minorticks_off()
    axes.margins(y=0.18)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(IMAGES / name, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def _mixed(result: Result) -> list[dict[str, Any]]:
    """Return the rows of runs of mixed length on one cluster, with the default limit."""
    rows = [row for row in result.rows if row["clusters"] == 1 and not row["limit"]]
    return [row for row in rows if row["ends_per_minute"] < QUOTA]

"""A run's plots, as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results.files import write_atomically
from tasks.interface import CONTROL_HZ

BLUE, GREY, INK = "#2f6fb3", "#b9bec6", "#24292f"
SUITE_COLOURS = ("#2f6fb3", "#c2571a", "#2e8b57", "#8250a0", "#9a6700", "#b3305a")
FONT_SIZE = 9


def write_success_plot(file: Path, tasks: pd.DataFrame, suites: pd.DataFrame) -> None:
    """Success of every task with its 95 % interval, and of every suite.

    Args:
        tasks: of `task_frame`.
        suites: of `suite_frame`.

    Raises:
        OSError: it cannot be written.
    """
    rows = []
    for suite in suites.to_dict("records"):
        name = str(suite["suite"])
        group = tasks[tasks["suite"] == name].to_dict("records")
        rows += [(f"{int(row['task_index'])}  {_shortened(str(row['task']))}", row, False) for row in group]
        rows.append((name, suite, True))
    figure, axes = _figure(height=0.6 + 0.24 * len(rows))
    for y, (_, row, whole) in enumerate(rows):
        if not np.isnan(row["rate"]):
            colour = INK if whole else BLUE
            low, high, rate = (100 * row[key] for key in ("low_95", "high_95", "rate"))
            axes.plot([low, high], [y, y], color=colour, linewidth=2.2 if whole else 1.4, solid_capstyle="butt")
            axes.plot([rate], [y], "D" if whole else "o", color=colour, markersize=5)
        if whole and y + 1 < len(rows):
            axes.axhline(y + 0.5, color=GREY, linewidth=0.6)
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    for label, (_, _, whole) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if whole else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("success [%], with 95 % interval")
    axes.grid(axis="x", color=GREY, linewidth=0.4)
    _write(file, figure)


def write_steps_plot(file: Path, episodes: pd.DataFrame) -> None:
    """How many of a suite's finished episodes had succeeded by a control step.

    Args:
        episodes: of `episode_frame`.

    Raises:
        OSError: it cannot be written.
    """
    figure, axes = _figure(height=3.2)
    finished = episodes[~episodes["error"].astype(bool)]
    last = int(finished["steps"].max()) if len(finished) else 1
    for colour, (suite, group) in zip(_cycle(len(finished)), finished.groupby("suite", sort=False), strict=False):
        steps = np.sort(group.loc[group["success"].astype(bool), "steps"].to_numpy())
        shares = 100 * np.arange(len(steps) + 1) / len(group)
        axes.step([0, *steps, last], [*shares, shares[-1]], where="post", color=colour, label=str(suite))
    axes.set_xlim(0, last)
    axes.set_ylim(0, 102)
    axes.set_xlabel(f"control steps ({CONTROL_HZ} per second)")
    axes.set_ylabel("episodes that succeeded [%]")
    axes.grid(color=GREY, linewidth=0.4)
    if len(finished):
        axes.legend(frameon=False, loc="upper left")
    _write(file, figure)


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # no pyplot: nothing global, no display

    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.subplots()
    axes.tick_params(labelsize=FONT_SIZE)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _write(file: Path, figure: Any) -> None:
    from matplotlib import rc_context

    content = io.BytesIO()
    settings: Mapping[str, Any] = {"svg.hashsalt": "vla-vggt", "svg.fonttype": "none", "font.size": FONT_SIZE}
    with rc_context(dict(settings)):
        figure.savefig(content, format="svg", metadata={"Date": None})
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content.getvalue())


def _cycle(count: int) -> Sequence[str]:
    return [SUITE_COLOURS[i % len(SUITE_COLOURS)] for i in range(max(count, 1))]


def _shortened(name: str, most: int = 52) -> str:
    text = name.replace("_", " ")
    return text if len(text) <= most else f"{text[: most - 1]}…"

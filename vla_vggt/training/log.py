"""What a training run tells while it goes on: TensorBoard's files, and every step's loss in `losses.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

LOSSES = "losses.jsonl"
ACTION_ENTRIES = ("x", "y", "z", "rotation_x", "rotation_y", "rotation_z", "gripper")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEntry:
    """One step of the optimiser."""

    step: int
    """1 for the first."""
    loss: float
    """Mean absolute error of normalised actions, over the step's batch."""
    entry_losses: tuple[float, ...]
    """The same for each of the 7 entries of an action."""
    gradient_norm: float
    """Before clipping."""
    lr: float


class TrainingLog:
    """Writes a run's log; a context manager.

    Args:
        folder: the run's.
        step: steps that are done: what an earlier, interrupted process logged beyond them is dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(folder / LOSSES) if _step(line) <= step]
        (folder / LOSSES).write_text("".join(f"{line}\n" for line in kept))
        self._losses = (folder / LOSSES).open("a")
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)  # type: ignore[no-untyped-call]

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._losses.close()
        self._writer.close()  # type: ignore[no-untyped-call]

    def steps(self, entries: Sequence[StepEntry], *, samples_per_s: float, mfu: float | None) -> None:
        """Steps that were done since the last call.

        Args:
            mfu: share of the GPU's bf16 peak; None where it is not known.
        """
        for entry in entries:
            self._losses.write(json.dumps({"step": entry.step, "loss": entry.loss}) + "\n")
        self._losses.flush()
        last = entries[-1]
        self._scalar("train/loss", float(np.mean([entry.loss for entry in entries])), last.step)
        for name, values in zip(ACTION_ENTRIES, zip(*(e.entry_losses for e in entries), strict=True), strict=True):
            self._scalar(f"train/loss_{name}", float(np.mean(values)), last.step)
        self._scalar("train/gradient_norm", last.gradient_norm, last.step)
        self._scalar("train/learning_rate", last.lr, last.step)
        self._scalar("speed/samples_per_s", samples_per_s, last.step)
        if mfu is not None:
            self._scalar("speed/mfu", mfu, last.step)

    def validation(self, step: int, entry_losses: Sequence[float]) -> None:
        """The validation loss, whole and for each entry of an action."""
        self._scalar("validation/loss", float(np.mean(entry_losses)), step)
        for name, value in zip(ACTION_ENTRIES, entry_losses, strict=True):
            self._scalar(f"validation/loss_{name}", value, step)

    def chunks(
        self, step: int, name: str, predicted: NDArray[np.float32], true: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> None:
        """A picture of predicted chunks beside the demonstrated ones: [n, H, 7] twice, and [n, H]."""
        self._writer.add_figure(  # type: ignore[no-untyped-call]
            f"chunks/{name}", plot_chunks(predicted, true, valid), step
        )

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]


def plot_chunks(predicted: NDArray[np.float32], true: NDArray[np.float32], valid: NDArray[np.bool_]) -> Figure:
    """One row per sample, one column per entry of an action: demonstrated in grey, predicted in blue."""
    samples = len(predicted)
    figure = Figure(figsize=(14, 1.7 * samples), layout="constrained")
    axes = figure.subplots(samples, len(ACTION_ENTRIES), squeeze=False, sharex=True)
    for row in range(samples):
        steps = np.arange(int(valid[row].sum()))
        for column, entry in enumerate(ACTION_ENTRIES):
            axis = axes[row, column]
            axis.plot(steps, true[row, steps, column], color="0.6", linewidth=3, label="demonstrated")
            axis.plot(steps, predicted[row, steps, column], color="tab:blue", label="predicted")
            axis.set_ylim(-1.15, 1.15)
            axis.tick_params(labelsize=7)
            if row == 0:
                axis.set_title(entry, fontsize=9)
            if column == 0:
                axis.set_ylabel(f"sample {row}", fontsize=8)
    axes[-1, 0].set_xlabel("step of the chunk", fontsize=8)
    axes[0, 0].legend(fontsize=6, loc="lower left")
    return figure


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []


def _step(line: str) -> float:
    """The step of a line; beyond all steps for one that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")

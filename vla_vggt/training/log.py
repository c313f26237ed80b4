"""What a training run tells while it goes on: TensorBoard's files, and every step's loss in `losses.jsonl`."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from vla_vggt.training.evaluations import EvaluationResult

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
        self._has_margins = False
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)  # type: ignore[no-untyped-call]

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._losses.close()
        self._writer.close()  # type: ignore[no-untyped-call]

    def steps(
        self, entries: Sequence[StepEntry], *, samples_per_s: float, mfu: float | None, memory_gib: float | None
    ) -> None:
        """Steps that were done since the last call.

        Args:
            mfu: share of the GPU's bf16 peak; None where it is not known.
            memory_gib: of the main process's GPU, at most so far; None without one.
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
        if memory_gib is not None:
            self._scalar("speed/gpu_memory_gib", memory_gib, last.step)

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

    def evaluation(self, result: EvaluationResult) -> None:
        """What an evaluation found, at the step of its checkpoint: success with its interval, by task, and a failure to watch."""
        for suite in result.suites:
            for name, value in (("success", suite.rate), ("low_95", suite.low), ("high_95", suite.high)):
                self._scalar(f"evaluation_{suite.name}/{name}", value, result.step)
        for task in result.tasks:
            self._scalar(f"evaluation_tasks/{task.name}", task.rate, result.step)
        self._writer.add_text(  # type: ignore[no-untyped-call]
            "evaluation", _table(result), result.step
        )
        if not self._has_margins:
            names = ("success", "low_95", "high_95")
            margins = {s.name: ["Margin", [f"evaluation_{s.name}/{name}" for name in names]] for s in result.suites}
            self._writer.add_custom_scalars({"success with 95 % interval": margins})  # type: ignore[no-untyped-call]
            self._has_margins = True
        image = animation(result.video) if result.video is not None else None
        if image is not None:
            summary = Summary(value=[Summary.Value(tag=f"failure/{result.failure}", image=image)])
            self._writer._get_file_writer().add_summary(summary, result.step)  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]


def _table(result: EvaluationResult) -> str:
    """Markdown: every task's successes."""
    rows = [
        f"| {rate.name} | {rate.successes}/{rate.planned} | {rate.rate:.1%} | {rate.low:.1%} – {rate.high:.1%} |"
        for rate in (*result.suites, *result.tasks)
    ]
    return "\n".join(["| | successes | rate | 95 % interval |", "|---|---|---|---|", *rows])


def animation(video: Path) -> Summary.Image | None:
    """A video as TensorBoard shows it among its pictures: a GIF of every second frame. None where it cannot be read."""
    import av

    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            between_frames_ms = 2000.0 / float(stream.average_rate or 20)
            pixels = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (av.FFmpegError, OSError, IndexError):
        return None
    frames = [Image.fromarray(picture) for picture in pixels[::2]]
    out = io.BytesIO()
    frames[0].save(out, format="GIF", save_all=True, append_images=frames[1:], duration=between_frames_ms, loop=0)
    width, height = frames[0].size
    return Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=out.getvalue())


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

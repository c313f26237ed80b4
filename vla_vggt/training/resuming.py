"""The run's folder before the first step: that it can be written, and what must be as it was when a run goes on in it."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

from vla_vggt.configs.train_config import NOT_THE_RESULT, TrainArguments
from vla_vggt.training.checkpoint import CheckpointError, PolicyDescription
from vla_vggt.training.processes import Processes

PROCESSES = "processes"
SAMPLES_PER_STEP = ("batch_size", "accumulate", PROCESSES)
"""What a step's samples are the product of: a run may go on with other factors."""


def require_folder(folder: Path, inside: str) -> None:
    """Refuse to begin where nothing could be saved in the end.

    Args:
        folder: the run's; it need not be there yet.
        inside: the name of the folder in it that is written.

    Raises:
        NotADirectoryError: a file is in the way.
        PermissionError: this user may not write there.
    """
    for path in (folder / inside, folder, *folder.absolute().parents):
        if not os.path.lexists(path):
            continue
        if not path.is_dir():
            raise NotADirectoryError(
                f"--log-dir {folder}: expected a folder at {path}, found something else. Move it away or name another."
            )
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(f"--log-dir {folder}: no permission to write into {path}. Name another, or allow it.")
        if path != folder / inside:
            return  # what lies above need not be written


def require_shared(step: int | None, last: Path, processes: Processes) -> None:
    """All processes must see the same checkpoints.

    Raises:
        CheckpointError: this one sees another step than the main one.
    """
    mains = processes.share(step)
    if step != mains:
        raise CheckpointError(
            f"process {processes.rank} finds {'no checkpoint' if step is None else f'step {step}'} at {last}, the main one "
            f"{'none' if mains is None else f'step {mains}'}. --log-dir must be on a disk that all machines share."
        )


def require_same(earlier: PolicyDescription, now: PolicyDescription, folder: Path) -> None:
    """Refuse to go on with other data, arguments or language weights.

    Raises:
        CheckpointError: something differs; the message names it.
    """
    usual = {field.name: field.default for field in dataclasses.fields(TrainArguments)}
    before = usual | earlier.training  # what was no flag yet did what its default does
    differing = [
        f"--{name.replace('_', '-')} was {before.get(name)}, is {value}"
        for name, value in now.training.items()
        if name not in (*NOT_THE_RESULT, *SAMPLES_PER_STEP) and before.get(name) != value
    ]
    was, is_ = (_samples_per_step(description.training) for description in (earlier, now))
    if math.prod(was) != math.prod(is_):
        differing.append(
            "samples per step (--batch-size · --accumulate · processes) were "
            f"{' · '.join(map(str, was))}, are {' · '.join(map(str, is_))}"
        )
    if earlier.data_sha256 != now.data_sha256:
        differing.append("the demonstrations differ")
    if differing:
        raise CheckpointError(
            f"{folder} holds another run: {'; '.join(differing)}. Name another --log-dir, or repeat its command to go on with it."
        )


def _samples_per_step(training: dict[str, Any]) -> list[int]:
    return [int(training.get(name, 1)) for name in SAMPLES_PER_STEP]

#!/usr/bin/env python3
"""Makes a checkpoint small enough to ship: bfloat16 weights, no training state, and the features of more instructions.

Those are of the suites that were trained on and of LIBERO-PRO's variants of them, in the words of file names and of BDDL files.

python scripts/export_checkpoint.py --checkpoint logs/spatial --output vla_vggt/pretrained/libero_spatial
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.suites import SUITES, find_suite, load_suite
from vla_vggt.models.language_features import read_language_features
from vla_vggt.pretrained import INSTRUCTIONS
from vla_vggt.training.checkpoint import PolicyDescription, load_policy, save_policy


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Export a checkpoint."""

    checkpoint: Path
    """A checkpoint, a training run's folder (the best one in it), or a .pth file."""
    output: Path
    """Folder."""
    features: Path = INSTRUCTIONS
    """File of features that has them, of the same language model."""
    execute_steps: int | None = None
    """Recommended: actions of a chunk to execute before the next query. Default: as it was trained with."""


def main() -> None:
    """Read, convert, write, say what was written."""
    arguments = tyro.cli(Arguments)
    policy = load_policy(arguments.checkpoint)
    more = read_language_features(arguments.features)
    policy.description.language.require(more.identity)
    steps = policy.description.execute_steps if arguments.execute_steps is None else arguments.execute_steps
    exported = dataclasses.replace(
        policy,
        description=dataclasses.replace(
            policy.description, execute_steps=steps, training=without_folders(policy.description.training)
        ),
        weights={name: weight.to(torch.bfloat16) for name, weight in policy.weights.items()},
        instructions={
            text: policy.instructions[text] if text in policy.instructions else more.encode(text)
            for text in instructions_of(policy.description)
        },
    )
    save_policy(arguments.output, exported)
    size = sum(file.stat().st_size for file in arguments.output.iterdir()) / 1e6
    print(
        f"{arguments.output}: step {policy.description.step}, {len(exported.instructions)} instructions, {size:.1f} MB"
    )


def without_folders(training: dict[str, Any]) -> dict[str, Any]:
    """A run's arguments, of whose paths only the names are left: where they lay is nobody's business."""

    def name(value: Any) -> Any:
        return Path(value).name if value else value

    paths = {"data_path": [name(path) for path in training.get("data_path", [])]}
    return training | paths | {key: name(training.get(key)) for key in ("log_dir", "init_from")}


def instructions_of(description: PolicyDescription) -> list[str]:
    """What was trained on, and what may be asked for in evaluations of its suites and of their variants."""
    bases = {find_suite(task.suite).base for task in description.tasks if task.suite}
    tasks = [task for name, suite in SUITES.items() if suite.base in bases for task in load_suite(name)]
    asked = {text for task in tasks for text in (task.instruction_file_name, task.instruction_bddl)}
    return sorted(asked | {task.instruction for task in description.tasks})


if __name__ == "__main__":
    main()

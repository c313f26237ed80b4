#!/usr/bin/env python3
"""What a policy goes by: how far its actions move when a camera is blanked or shifted, or it is told something else.

    python scripts/sensitivity.py --data demos/libero_spatial_cache --checkpoint vla_vggt/pretrained/libero_spatial

A policy that does not mind a blank camera does not look through it. One that does not mind where a picture stands cannot tell from it
where things are, unless by what stands beside them. The numbers compare policies on the same pictures; they are no success rates.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.demonstrations.decoded_set import DemonstrationSet, read_decoded_set
from tasks.interface import Observation, Policy
from vla_vggt.policy import load
from vla_vggt.training.checkpoint import load_policy

GREY = 128
Change = Callable[[Observation], Observation]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Change what a policy sees; print how far its actions move."""

    data: Path
    """Demonstrations of its tasks: a decoded set, as vla-collect --format cache makes it."""
    checkpoint: Path
    """The policy."""
    samples: int = 60
    """Pictures, evenly over the set."""
    shift: float = 0.04
    """Of a picture, as a part of its side; the border is repeated, as vla-train --augment-shift does."""
    move_m: float = 0.02
    """How far beside its place the hand is said to be."""
    device: str = "auto"


def main() -> None:
    """Read, change, print."""
    arguments = tyro.cli(Arguments)
    if arguments.samples < 1:
        raise SystemExit(f"--samples: expected at least 1, got {arguments.samples}")
    description = load_policy(arguments.checkpoint).description
    policy = load(arguments.checkpoint, device=arguments.device)
    demonstrations = read_decoded_set(arguments.data)
    if demonstrations.convention != policy.needs.image_convention:
        raise SystemExit(
            f"--data: expected images as the policy takes them, {policy.needs.image_convention}, got {demonstrations.convention}: "
            "draw them with vla-collect --format cache, which makes rotated_180"
        )
    prompts = {task.name: task.instruction for task in description.tasks}
    seen = list(observations(demonstrations, policy.needs.cameras, prompts, arguments.samples))
    changes = possible_changes(policy.needs.cameras, list(prompts.values()), arguments)
    steps = description.execute_steps
    show(effects_of(policy, seen, changes, steps), steps)
    Console(width=110).print(f"{arguments.checkpoint}, {len(seen)} pictures of {arguments.data}")


def observations(
    demonstrations: DemonstrationSet, cameras: tuple[str, ...], prompts: dict[str, str], count: int
) -> Iterator[Observation]:
    """Some of a set's pictures, evenly over all, as a policy gets them.

    Raises:
        SystemExit: the set lacks a camera or has a task that the policy does not know.
    """
    missing = set(cameras) - set(demonstrations.cameras)
    if missing:
        raise SystemExit(f"--data: the policy needs {', '.join(sorted(missing))}, which the set does not have")
    chosen = [demonstrations.cameras.index(camera) for camera in cameras]
    total = len(demonstrations.images)
    for place in np.unique(np.linspace(0, total - 1, min(count, total)).astype(int)):
        episode = next(e for e in reversed(demonstrations.episodes) if e.first_image <= place)
        if episode.task not in prompts:
            raise SystemExit(f"--data: the policy was not trained on {episode.task}, only on {', '.join(prompts)}")
        step = (int(place) - episode.first_image) * episode.image_every
        yield Observation(
            images=np.ascontiguousarray(demonstrations.images[place][chosen]),
            proprio=demonstrations.proprio[episode.first + step],
            instruction=prompts[episode.task],
            episode_id=episode.name,
            step=step,
        )


def possible_changes(cameras: tuple[str, ...], prompts: list[str], arguments: Arguments) -> dict[str, list[Change]]:
    """What is changed → the ways to, whose effects are averaged."""
    ways = ((0, 1), (0, -1), (1, 0), (-1, 0))
    changes: dict[str, list[Change]] = {}
    for index, camera in enumerate(cameras):
        changes[f"{camera}: grey"] = [partial(with_grey, index=index)]
        changes[f"{camera}: shifted by {arguments.shift:.0%}"] = [
            partial(with_shift, index=index, share=arguments.shift, way=way) for way in ways
        ]
    following = dict(zip(prompts, [*prompts[1:], prompts[0]], strict=True))
    if len(following) > 1:
        changes["another task's instruction"] = [partial(told, instructions=following)]
    changes[f"hand said to be {100 * arguments.move_m:g} cm beside"] = [
        partial(with_hand_at, axis=axis, beside_m=way * arguments.move_m) for axis in range(3) for way in (-1, 1)
    ]
    return changes


def with_grey(seen: Observation, *, index: int) -> Observation:
    """One camera sees nothing."""
    images = seen.images.copy()
    images[index] = GREY
    return dataclasses.replace(seen, images=images)


def with_shift(seen: Observation, *, index: int, share: float, way: tuple[int, int]) -> Observation:
    """One camera's picture stands elsewhere."""
    images = seen.images.copy()
    images[index] = shifted(seen.images[index], share, way)
    return dataclasses.replace(seen, images=images)


def told(seen: Observation, *, instructions: dict[str, str]) -> Observation:
    """The instruction is another one."""
    return dataclasses.replace(seen, instruction=instructions[seen.instruction])


def with_hand_at(seen: Observation, *, axis: int, beside_m: float) -> Observation:
    """The hand is said to be elsewhere."""
    proprio = seen.proprio.copy()
    proprio[axis] += beside_m
    return dataclasses.replace(seen, proprio=proprio)


def shifted(image: NDArray[np.uint8], share: float, way: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) moved by a part of its side along (rows, columns), its border repeated."""
    rows, columns = (
        (np.arange(side) + direction * round(share * side)).clip(0, side - 1)
        for side, direction in zip(image.shape[:2], way, strict=True)
    )
    return image[rows][:, columns]


def effects_of(
    policy: Policy, seen: list[Observation], changes: dict[str, list[Change]], steps: int
) -> dict[str, NDArray[np.float64]]:
    """(3,) for each: the mean absolute difference in translation, rotation and gripper over the first `steps` actions."""
    usual, effects = answers(policy, seen, steps), {}
    for name, ways in changes.items():
        others = [answers(policy, [change(observation) for observation in seen], steps) for change in ways]
        entries = np.abs(np.stack(others) - usual).mean(axis=(0, 1, 2))  # (7,)
        effects[name] = np.array([entries[:3].mean(), entries[3:6].mean(), entries[6]])
    return effects


def answers(policy: Policy, seen: list[Observation], steps: int) -> NDArray[np.float64]:
    """(observations, steps, 7)"""
    size = policy.needs.batch_size
    chunks = [
        chunk for first in range(0, len(seen), size) for chunk in policy.act(padded(seen[first : first + size], size))
    ]
    return np.stack([chunk.actions[:steps] for chunk in chunks[: len(seen)]])


def padded(seen: list[Observation], size: int) -> list[Observation]:
    """A whole batch."""
    return [*seen, *[seen[-1]] * (size - len(seen))]


def show(effects: dict[str, NDArray[np.float64]], steps: int) -> None:
    """Print a table."""
    table = Table("changed", "translation", "rotation", "gripper", title=f"Mean change of the first {steps} actions")
    for name, values in effects.items():
        table.add_row(name, *(f"{value:.3f}" for value in values))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()

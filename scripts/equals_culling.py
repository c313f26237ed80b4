#!/usr/bin/env python
"""Holds culled images to whole ones, pixel for pixel, in many poses of arm, hand and objects.

    python scripts/equals_culling.py --processes 2                # 200 frames of each main suite, both cameras
    python scripts/equals_culling.py --suites libero_spatial --frames 20
    MUJOCO_GL=egl python scripts/equals_culling.py --processes 16  # drawn on a GPU; the default is OSMesa

In half of the frames the arm is where seeded actions brought it; in the other half its joints are drawn at random, so that the wrist
camera sees the room, the mirror on the stove from all sides, and the arm itself. Whole images are held to stock LIBERO's by
`scripts/equals_stock.py`.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sys
from pathlib import Path

import tyro

# Stock LIBERO, to compare with, is in `tests`, which is not installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])

from tasks.suites import load_suite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare culled images with whole ones."""

    suites: tuple[str, ...] = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
    """Suites to compare."""
    frames: int = 200
    """Frames of each suite, spread over its tasks; each is drawn by both cameras."""
    processes: int = 1
    """Processes to use."""


def compare(job: tuple[str, int, int]) -> tuple[str, int, int, float]:
    """One task: (its name, frames, unequal images, share of the triangles that is drawn)."""
    from tests.harness.culling import compare_frames

    suite, index, frames = job
    task = load_suite(suite)[index]
    unequal, share = compare_frames(task, frames)
    return str(task), frames, unequal, share


def main(arguments: Arguments) -> int:
    """Compare; 0 if every pixel is equal."""
    jobs = []
    for suite in arguments.suites:
        tasks = load_suite(suite)
        shares = [arguments.frames // len(tasks) + (i < arguments.frames % len(tasks)) for i in range(len(tasks))]
        jobs += [(suite, i, frames) for i, frames in enumerate(shares) if frames]
    total = different = 0
    with multiprocessing.get_context("spawn").Pool(arguments.processes, maxtasksperchild=1) as pool:
        for name, frames, unequal, share in pool.imap(compare, jobs):
            total, different = total + 2 * frames, different + unequal
            verdict = f"{unequal} images differ" if unequal else "equal"
            print(f"{name}: {frames} frames, {verdict}; {100 * share:.0f} % of the triangles drawn", flush=True)
    print(f"{total - different} of {total} images equal whole ones pixel for pixel")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

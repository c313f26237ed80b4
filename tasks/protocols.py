"""Evaluation protocols: everything that changes a success rate and is not the policy.

A protocol is a named, frozen value. Results of different protocols are not comparable. Sources:
`openvla`: openvla/experiments/robot/libero/run_libero_eval.py; `openpi`: openpi/examples/libero/main.py;
`lerobot`: lerobot/envs/libero.py; `libero`: libero/lifelong/evaluate.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.interface import ImageConvention, TaskSpec
from tasks.suites import find_suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How episodes are set up and when they end; see `PROTOCOLS` for the values."""

    name: str
    render_size_px: int
    """Height and width of every rendered image."""
    image_convention: ImageConvention
    settle_steps: int
    """Control steps before the policy acts; they do not count towards the horizon."""
    settle_gripper: float
    """The gripper entry of the otherwise zero settling action."""
    horizon_steps: dict[str, int]
    """Base suite → control steps after settling."""
    reset_seed: int
    reset_stream: Literal["sequence", "per_episode"]
    """What fixture poses come from. `sequence`: LIBERO's generator is seeded once per task with `reset_seed`
    and episode k takes the k-th reset. `per_episode`: it is seeded with `reset_seed + k`, then one reset."""
    episodes_per_task: int

    def horizon(self, task: TaskSpec) -> int:
        """Control steps the task may take after settling."""
        return self.horizon_steps[find_suite(task.suite).base]

    def instruction(self, task: TaskSpec) -> str:
        """The prompt: the file name's, except for LIBERO-PRO's `_lan` and `_task`, where only the BDDL has the change."""
        return task.instruction_bddl if find_suite(task.suite).prompt_from_bddl else task.instruction_file_name


def _horizons(spatial: int, object_: int, goal: int, ten: int, ninety: int) -> dict[str, int]:
    return {
        "libero_spatial": spatial,
        "libero_object": object_,
        "libero_goal": goal,
        "libero_10": ten,
        "libero_90": ninety,
    }


def openvla() -> Protocol:
    """The default: what most published LIBERO numbers use."""
    return Protocol(
        name="openvla",
        render_size_px=256,
        image_convention="rotated_180",
        settle_steps=10,
        settle_gripper=-1.0,
        horizon_steps=_horizons(220, 280, 300, 520, 400),
        reset_seed=0,
        reset_stream="sequence",
        episodes_per_task=50,
    )


def openpi() -> Protocol:
    return Protocol(
        name="openpi",
        render_size_px=256,
        image_convention="rotated_180",
        settle_steps=10,
        settle_gripper=-1.0,
        horizon_steps=_horizons(220, 280, 300, 520, 400),
        reset_seed=7,
        reset_stream="sequence",
        episodes_per_task=50,
    )


def lerobot() -> Protocol:
    return Protocol(
        name="lerobot",
        render_size_px=256,
        image_convention="rotated_180",
        settle_steps=10,
        settle_gripper=-1.0,
        horizon_steps=_horizons(280, 280, 300, 520, 400),
        reset_seed=1000,
        reset_stream="per_episode",
        episodes_per_task=50,
    )


def libero() -> Protocol:
    """LIBERO's own evaluation. Its fixture poses are not reproducible upstream; here they follow `10000 + episode`."""
    return Protocol(
        name="libero",
        render_size_px=128,
        image_convention="raw",
        settle_steps=5,
        settle_gripper=0.0,
        horizon_steps=_horizons(600, 600, 600, 600, 600),
        reset_seed=10000,
        reset_stream="per_episode",
        episodes_per_task=20,
    )


PROTOCOLS = {protocol.name: protocol for protocol in (openvla(), openpi(), lerobot(), libero())}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ValueError: there is none; the message lists the valid names.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; valid protocols: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]

"""A small policy that nobody trained, and arguments for a small training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.interface import Observation
from tests.lift import LIFT
from vla_vggt.configs.model_config import tiny
from vla_vggt.configs.train_config import TrainArguments
from vla_vggt.data.statistics import Statistics
from vla_vggt.models.language_encoder import LanguageIdentity
from vla_vggt.models.vla_model import VLAModel
from vla_vggt.training.checkpoint import PolicyCheckpoint, PolicyDescription, TrainedTask
from vla_vggt.training.trainer import Trainer

WIDTH = 16


def untrained(**changes: Any) -> PolicyCheckpoint:
    """A `tiny` policy; `changes` are the description's."""
    config = tiny(WIDTH)
    rows = np.random.default_rng(0).uniform(-1, 1, (100, 8))
    values = {
        "model": config,
        "action_statistics": Statistics.of(rows[:, :7]),
        "proprio_statistics": Statistics.of(rows),
        "language": LanguageIdentity(model="none", weights_sha256="a", tokenizer_sha256="b", layer=-1, width=WIDTH),
        "image_convention": "rotated_180",
        "recorded_px": 64,
        "execute_steps": 4,
        "tasks": (TrainedTask(name="lift", suite="libero_object", instruction="lift the cube"),),
        "data_sha256": "c",
        "init_states_sha256": ("d", "e"),
        "step": 7,
        "validation_loss": 0.5,
        "training": {"lr": 1e-4},
        "versions": {"torch": torch.__version__},
    } | changes
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = dict(VLAModel(values["model"]).state_dict())
    return PolicyCheckpoint(
        description=PolicyDescription(**values),
        weights=weights,
        instructions={
            text: torch.randn(length, WIDTH, generator=generator).to(torch.bfloat16)
            for text, length in (("lift the cube", 3), ("drop the cube", 5))
        },
    )


def interrupt_at(trainer: Trainer, step: int) -> None:
    """Run it until `step` steps are done, and interrupt it there, as Ctrl-C does."""
    original = trainer.train_step

    def until(batches: Any) -> torch.Tensor:
        if trainer.step == step:
            raise KeyboardInterrupt
        return original(batches)

    trainer.train_step = until  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def observation(number: int, *, size: int = 64, cameras: int = 2, instruction: str = "lift the cube") -> Observation:
    """An observation of noise."""
    generator = np.random.default_rng(number)
    return Observation(
        images=generator.integers(0, 256, (cameras, size, size, 3), dtype=np.uint8),
        proprio=generator.uniform(-1, 1, 8).astype(np.float32),
        instruction=instruction,
        episode_id=f"libero_object/00/{number:02d}/r0",
        step=0,
    )


def train_arguments(log_dir: Path, language: Path, **changes: Any) -> TrainArguments:
    """`tiny` on the three real demonstrations."""
    values: dict[str, Any] = {
        "data_path": (LIFT,),
        "task_names": ("lift the cube",),
        "log_dir": log_dir,
        "preset": "tiny",
        "language_model": str(language),
        "batch_size": 8,
        "max_steps": 6,
        "save_every": 3,
        "log_every": 2,
        "lr": 1e-3,
        "device": "cpu",
    }
    return TrainArguments(**values | changes)

"""What a training run is told, what it learns from, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass

from vla_vggt.data.batches import Batches
from vla_vggt.data.images import AugmentationConfig
from vla_vggt.data.windows import Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Everything the loop is told."""

    total_steps: int
    warmup_steps: int
    batch_size: int
    """Of each process."""
    accumulate: int
    """Batches of each process per step."""
    lr: float
    weight_decay: float
    max_grad_norm: float
    ema_decay: float
    language_share: float = 1.0
    """Learning rate of a language model that is trained too, as a part of `lr`."""
    augmentation: AugmentationConfig | None
    seed: int
    save_every: int
    log_every: int
    compile: bool
    evaluate_every: int | None = None
    """Steps between checkpoints that are evaluated."""
    best_by_success: bool = False
    """Whether `best` is the checkpoint with the highest success, once one is evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingData:
    """Samples to learn from, and samples to be judged by."""

    batches: Batches
    windows: Windows
    image_px: int
    """Height and width of the images as recorded."""
    validation: Batches | None
    validation_windows: Windows | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a run stands."""

    step: int
    total_steps: int
    loss: float
    """Mean over the steps since the last report."""
    samples_per_s: float

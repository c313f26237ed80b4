"""AdamW, its learning rate over time, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

BETAS = (0.9, 0.95)
LAST_LR = 0.0
"""What is left of the learning rate at the end."""


def make_adamw(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    language: Sequence[torch.Tensor] = (),
    language_share: float = 1.0,
) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101), fused on a GPU; matrices decay, gains, biases and embeddings do not.

    Args:
        language: what is trained of a language model; none of it decays.
        language_share: its learning rate, as a part of the model's. Each group has its part as `share`.
    """
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if id(p) in linear], "weight_decay": weight_decay, "share": 1.0},
        {"params": [p for p in parameters if id(p) not in linear], "weight_decay": 0.0, "share": 1.0},
    ]
    if language:
        groups.append({"params": list(language), "weight_decay": 0.0, "share": language_share})
    return torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=parameters[0].is_cuda)


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """The learning rate of step 0, 1, …: a linear rise, then half a cosine (arXiv 1608.03983) down to `LAST_LR` of the peak."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * (LAST_LR + (1 - LAST_LR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


@torch.no_grad()
def update_average(
    average: Iterable[torch.Tensor], weights: Iterable[torch.Tensor], *, decay: float, step: int
) -> None:
    """Move `average` towards `weights` after step `step`: an exponential moving average, quicker at the beginning."""
    rate = 1.0 - min(decay, (1.0 + step) / (10.0 + step))
    torch._foreach_lerp_(list(average), list(weights), rate)

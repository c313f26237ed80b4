"""The L1 loss of a chunk of actions."""

from __future__ import annotations

from torch import Tensor


def chunk_l1(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """[7]: the sum of absolute errors of each action entry over all steps that are not padding.

    L1, not L2: a chunk's mean error is what open-loop execution accumulates, and a few impossible steps (a demonstrator's pauses)
    must not dominate it (ACT, arXiv 2304.13705, found L1 better). Divide by the number of valid steps for the mean.

    Args:
        predicted: [B, H, 7], normalised.
        target: [B, H, 7], normalised.
        valid: [B, H] bool.
    """
    errors = (predicted - target).abs() * valid[..., None]  # [B, H, 7]
    return errors.sum(dim=(0, 1))

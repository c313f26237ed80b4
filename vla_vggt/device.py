"""Which processor to compute on."""

from __future__ import annotations

import torch


def choose_device(name: str) -> torch.device:
    """The device called `auto` (a GPU if there is one), `cuda` or `cpu`.

    Raises:
        ValueError: cuda is wanted and torch finds no GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        why = "this torch was built without CUDA" if torch.version.cuda is None else "torch finds no GPU"
        raise ValueError(f"--device cuda: {why}. Use --device cpu.")
    return torch.device(name)

"""How much arithmetic a training step is, and what part of the GPU's peak that makes."""

from __future__ import annotations

import math

from tasks.interface import PROPRIO_DIM
from vla_vggt.configs.model_config import ModelConfig
from vla_vggt.models.components.convolutional_stem import FIRST_STRIDE

PEAK_BF16_TFLOPS = {"H200": 989.0, "H100": 989.0, "GH200": 989.0, "A100": 312.0, "L40S": 362.0, "RTX 4090": 165.0}
"""Dense bf16 with float32 accumulation, from NVIDIA's data sheets (SXM parts), by a part of the device's name."""


def forward_flops(config: ModelConfig, language_tokens: int) -> float:
    """Floating-point operations of one sample's forward pass: two for each multiply-add of the matrix products.

    Norms, activations and the sum over neighbours are left out, as is usual for model FLOPs.
    """
    state = int(config.proprioception)
    tokens = language_tokens + config.vision_tokens + state
    width = config.width
    layer = 2 * tokens * (5 * width**2 + 2 * width * config.feed_forward_width)  # graph 1, attention 4, feed-forward
    attention = 4 * tokens**2 * width  # queries · keys, weights · values
    embedding = (
        2
        * width
        * (
            language_tokens * config.language_width
            + config.vision_tokens * _stem_products(config)
            + state * PROPRIO_DIM
        )
    )
    steps = config.chunk_steps if config.pooling == "queries" else 1
    pooling = 2 * (2 * tokens + 2 * steps) * width**2 + 4 * steps * tokens * width if steps > 1 else 0
    outputs = config.action_dim * (1 if config.pooling == "queries" else config.chunk_steps)
    head = 2 * steps * config.head_width * (width + outputs)
    return config.layers * (layer + attention) + embedding + pooling + head


def _stem_products(config: ModelConfig) -> float:
    """Multiply-adds that make a patch's token, per feature of it."""
    if config.stem == "patches":
        return 3 * config.patch_px**2
    halvings = round(math.log2(config.patch_px / FIRST_STRIDE))
    first = 3 * 7**2 * 2**halvings  # 4^halvings places in a patch, features divided by 2^halvings
    return (
        first + halvings * 9 * config.width / 2 + config.width
    )  # a halving: 3×3 from half the features, at any size the same


def training_flops(config: ModelConfig, language_tokens: int) -> float:
    """Of one sample's training step: the backward pass does twice the forward's products."""
    return 3 * forward_flops(config, language_tokens)


def peak_flops(device_name: str) -> float | None:
    """The bf16 peak of a GPU [FLOP/s]; None for one that is not in the table."""
    return next((1e12 * peak for part, peak in PEAK_BF16_TFLOPS.items() if part in device_name), None)

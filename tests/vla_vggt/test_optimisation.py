"""Loss, learning rate, moving average, and the count of arithmetic."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.vla_vggt.test_vla_model import inputs
from vla_vggt.configs.model_config import PRESETS, tiny
from vla_vggt.models.vla_model import VLAModel
from vla_vggt.training.flops import forward_flops, peak_flops, training_flops
from vla_vggt.training.loss import chunk_l1
from vla_vggt.training.optimizer import learning_rate, make_adamw, update_average


def test_the_loss_counts_valid_steps_only() -> None:
    predicted = torch.zeros(2, 3, 7, requires_grad=True)
    target = torch.ones(2, 3, 7) * torch.arange(1.0, 8.0)
    valid = torch.tensor([[True, True, False], [True, False, False]])
    errors = chunk_l1(predicted, target, valid)
    assert errors.tolist() == [3.0 * k for k in range(1, 8)]
    errors.sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.abs().sum(dim=2).tolist() == [[7, 7, 0], [7, 0, 0]]


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(step, peak=2.0, warmup_steps=10, total_steps=110) for step in range(111)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates[110] == pytest.approx(0.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(0, peak=2.0, warmup_steps=0, total_steps=1) == 2.0


def test_only_matrices_decay() -> None:
    model = VLAModel(tiny(16))
    optimizer = make_adamw(model, lr=1.0, weight_decay=0.1)
    decayed = {id(p) for p in optimizer.param_groups[0]["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in decayed}
    assert "vision_encoder.embed.weight" in names
    assert not any(name.endswith((".bias", ".gain", ".rows", ".types", ".queries")) for name in names)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    assert optimizer.param_groups[1]["weight_decay"] == 0.0


def test_the_moving_average_is_quick_first_and_slow_later() -> None:
    average, weights = [torch.zeros(3)], [torch.ones(3)]
    update_average(average, weights, decay=0.9, step=0)
    assert average[0].tolist() == pytest.approx([0.9] * 3)
    average = [torch.zeros(3)]
    update_average(average, weights, decay=0.9, step=10_000)
    assert average[0].tolist() == pytest.approx([0.1] * 3)


@pytest.mark.parametrize(
    "change", [{}, {"pooling": "mean"}, {"proprioception": False, "neighbours": 8}, {"stem": "convolutions"}]
)
def test_the_count_of_arithmetic_is_torchs(change: dict[str, object]) -> None:
    """`torch.utils.flop_counter` counts every matrix product that is really done."""
    from torch.utils.flop_counter import FlopCounterMode

    config = dataclasses.replace(tiny(48), **change)  # type: ignore[arg-type]
    model, given = VLAModel(config), inputs(config, batch=3, language_tokens=9)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(given)
    assert forward_flops(config, 9) == pytest.approx(counter.get_total_flops() / 3, rel=0.01)
    assert training_flops(config, 9) == 3 * forward_flops(config, 9)


def test_peaks_are_known_by_name() -> None:
    assert peak_flops("NVIDIA H200") == peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("A toaster") is None
    assert 0.24e12 < training_flops(PRESETS["base"](896), 23) < 0.26e12

"""Which layers' weights are gathered together."""

from __future__ import annotations

from torch import nn

from vla_vggt.models.sharding import units


def layers(*weights: int) -> list[nn.Module]:
    return [nn.Linear(count, 1, bias=False) for count in weights]


def test_layers_are_taken_together_until_they_have_enough_weights() -> None:
    six = layers(4, 4, 4, 4, 4, 4)
    assert units(six, least=4) == [[layer] for layer in six]
    assert units(six, least=8) == [six[:2], six[2:4], six[4:]]
    assert units(six, least=9) == [six[:3], six[3:]]
    assert units(six, least=100) == [six]


def test_a_large_layer_is_a_unit_and_the_last_unit_may_be_small() -> None:
    four = layers(9, 2, 9, 1)
    assert units(four, least=8) == [four[:1], four[1:3], four[3:]]
    assert units([], least=8) == []

"""Exact statistics and the scaling made of them."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from vla_vggt.data.statistics import (
    PROPRIO_LIMIT,
    Scaling,
    Statistics,
    StatisticsError,
    action_scaling,
    proprio_scaling,
)

VALUES = np.random.default_rng(0).normal(size=(1000, 7)) * np.arange(1, 8)


def test_quantiles_are_exact() -> None:
    statistics = Statistics.of(VALUES)
    ordered = np.sort(VALUES, axis=0)
    place = 0.01 * 999
    low = ordered[9] + (place - 9) * (ordered[10] - ordered[9])
    np.testing.assert_allclose(statistics.q01, low)
    assert statistics.count == 1000
    np.testing.assert_allclose(statistics.minimum, ordered[0])
    np.testing.assert_allclose(statistics.std, VALUES.std(axis=0))


def test_scaling_maps_the_quantiles_to_one_and_back() -> None:
    statistics = Statistics.of(VALUES)
    scaling = action_scaling(statistics)
    corners = torch.tensor([statistics.q01, statistics.q99])
    scaled = scaling.scale(corners)
    torch.testing.assert_close(scaled[:, :6], torch.tensor([[-1.0], [1.0]]).expand(2, 6))
    torch.testing.assert_close(scaled[:, 6], corners[:, 6])  # the gripper is a command
    torch.testing.assert_close(
        scaling.restore(scaling.scale(torch.tensor(VALUES))), torch.tensor(VALUES), atol=1e-5, rtol=1e-5
    )


def test_what_never_changes_is_only_centred() -> None:
    scaling = Scaling(Statistics.of(np.full((10, 2), 5.0)))
    torch.testing.assert_close(scaling.scale(torch.tensor([[5.0, 5.5]])), torch.tensor([[0.0, 0.5]]))


def test_proprioception_far_outside_is_clipped() -> None:
    scaling = proprio_scaling(Statistics.of(np.random.default_rng(0).normal(size=(100, 8))))
    assert scaling.scale(torch.full((1, 8), 1e6)).unique().tolist() == [PROPRIO_LIMIT]


def test_they_survive_json() -> None:
    import json

    statistics = Statistics.of(VALUES)
    assert Statistics.from_plain(json.loads(json.dumps(asdict(statistics))), "actions", 7) == statistics


def test_missing_and_mismatched_statistics() -> None:
    plain = asdict(Statistics.of(VALUES))
    with pytest.raises(StatisticsError, match="the statistics of actions lack 'q99'; they have count, minimum"):
        Statistics.from_plain({k: v for k, v in plain.items() if k != "q99"}, "actions", 7)
    with pytest.raises(StatisticsError, match="statistics of proprioception: expected 8 finite entries in 'minimum'"):
        Statistics.from_plain(plain, "proprioception", 8)
    with pytest.raises(StatisticsError, match="statistics of actions: expected 7 finite entries in 'q01'"):
        Statistics.from_plain(plain | {"q01": [float("nan")] * 7}, "actions", 7)
    with pytest.raises(StatisticsError, match="expected finite vectors"):
        Statistics.of(np.array([[1.0, np.nan]]))
    with pytest.raises(StatisticsError, match=r"expected finite vectors \(N, D\), got \(0, 7\)"):
        Statistics.of(np.empty((0, 7)))

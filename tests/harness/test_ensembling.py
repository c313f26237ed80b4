"""Ensemblers against a slow definition of what they compute."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.ensembling import make_ensembler
from tasks.interface import ActionChunk, Ensembler, EnsembleSpec, OpenLoopSpec, TemporalEnsembleSpec

SPECS: list[EnsembleSpec] = [
    OpenLoopSpec(),
    OpenLoopSpec(execute_steps=3),
    TemporalEnsembleSpec(),
    TemporalEnsembleSpec(decay=0.5, query_every=4),
]


def chunk_at(step: int, length: int) -> ActionChunk:
    return ActionChunk(actions=np.random.default_rng(step).uniform(-1, 1, (length, 7)))


def roll(ensembler: Ensembler, steps: int, length: int) -> tuple[NDArray[np.float64], list[int]]:
    """Actions (steps, 7) and the steps at which a chunk was asked for."""
    actions, queries = [], []
    for step in range(steps):
        if ensembler.wants_chunk(step):
            ensembler.push(chunk_at(step, length), step)
            queries.append(step)
        actions.append(ensembler.action(step))
    return np.array(actions), queries


def act_definition(steps: int, length: int, decay: float, query_every: int) -> NDArray[np.float64]:
    """ACT's table (arXiv 2304.13705, algorithm 2): row = chunk, column = step; weights exp(-decay i), i = 0 the oldest."""
    table = np.full((steps, steps + length, 7), np.nan)
    for query in range(0, steps, query_every):
        table[query, query : query + length] = chunk_at(query, length).actions
    actions = []
    for step in range(steps):
        filled = [row for row in table[:, step] if not np.isnan(row).any()]
        weights = [np.exp(-decay * i) for i in range(len(filled))]
        total = np.zeros(7)
        for weight, row in zip(weights, filled, strict=True):
            total += weight * row
        total /= sum(weights)
        total[6] = np.sign(total[6])
        actions.append(total)
    return np.array(actions)


@pytest.mark.parametrize("decay", [0.0, 0.01, 0.7])
@pytest.mark.parametrize(("length", "query_every"), [(8, 1), (8, 3), (8, 8), (1, 1), (50, 7)])
def test_temporal_ensembling_equals_its_slow_definition(decay: float, length: int, query_every: int) -> None:
    actions, queries = roll(make_ensembler(TemporalEnsembleSpec(decay=decay, query_every=query_every)), 60, length)
    np.testing.assert_allclose(actions, act_definition(60, length, decay, query_every), rtol=0, atol=1e-12)
    assert queries == list(range(0, 60, query_every))


@pytest.mark.parametrize("decay", [-100.0, 1e6])
def test_extreme_decays_stay_finite(decay: float) -> None:
    actions, _ = roll(make_ensembler(TemporalEnsembleSpec(decay=decay)), 30, 20)
    assert np.isfinite(actions).all()


def test_the_oldest_chunk_weighs_most() -> None:
    ensembler = make_ensembler(TemporalEnsembleSpec(decay=1.0, query_every=1))
    ensembler.push(ActionChunk(actions=np.full((4, 7), 1.0)), 0)
    ensembler.push(ActionChunk(actions=np.full((4, 7), -1.0)), 1)
    weight = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(ensembler.action(1)[:6], 2 * weight - 1)
    assert ensembler.action(1)[6] == 1.0


def test_a_chunk_that_ends_early_is_followed_by_a_query() -> None:
    _, queries = roll(make_ensembler(TemporalEnsembleSpec(query_every=10)), 12, length=4)
    assert queries == [0, 4, 8]
    _, queries = roll(make_ensembler(OpenLoopSpec(execute_steps=10)), 12, length=4)
    assert queries == [0, 4, 8]


@pytest.mark.parametrize(("execute", "expected"), [(None, [0, 5, 10]), (3, [0, 3, 6, 9]), (1, list(range(12)))])
def test_open_loop_executes_the_chunk_as_it_is(execute: int | None, expected: list[int]) -> None:
    actions, queries = roll(make_ensembler(OpenLoopSpec(execute_steps=execute)), 12, length=5)
    assert queries == expected
    for step, action in enumerate(actions):
        query = max(q for q in queries if q <= step)
        np.testing.assert_array_equal(action, chunk_at(query, 5).actions[step - query])


@pytest.mark.parametrize("spec", SPECS, ids=str)
class TestConformance:
    """What every ensembler does."""

    def test_it_wants_a_chunk_first(self, spec: EnsembleSpec) -> None:
        assert make_ensembler(spec).wants_chunk(0)

    def test_asking_twice_changes_nothing(self, spec: EnsembleSpec) -> None:
        ensembler = make_ensembler(spec)
        ensembler.push(chunk_at(0, 6), 0)
        assert ensembler.wants_chunk(1) == ensembler.wants_chunk(1)
        np.testing.assert_array_equal(ensembler.action(0), ensembler.action(0))

    def test_every_step_has_a_finite_action(self, spec: EnsembleSpec) -> None:
        actions, _ = roll(make_ensembler(spec), 40, length=6)
        assert actions.shape == (40, 7)
        assert np.isfinite(actions).all()

    def test_episodes_are_independent(self, spec: EnsembleSpec) -> None:
        first, _ = roll(make_ensembler(spec), 7, length=6)
        again, _ = roll(make_ensembler(spec), 30, length=6)
        np.testing.assert_array_equal(first, again[:7])

    def test_a_single_chunk_is_executed(self, spec: EnsembleSpec) -> None:
        ensembler = make_ensembler(spec)
        chunk = chunk_at(0, 6)
        ensembler.push(chunk, 0)
        np.testing.assert_allclose(ensembler.action(0)[:6], chunk.actions[0, :6], rtol=1e-15)

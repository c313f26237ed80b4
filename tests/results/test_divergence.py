"""Where two runs of one episode part."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from results.divergence import APART, Divergence, divergence, divergences
from results.trace import Trace, TraceError, trace_path, write_trace
from tests.examples import trace

EPISODE = "libero_spatial/00/00/r0"


def changed(original: Trace, *, action: int | None = None, place: int | None = None, by: float = 2 * APART) -> Trace:
    actions, qpos = original.actions.copy(), original.qpos.copy()
    if action is not None:
        actions[action:, 6] += 1e-15
    if place is not None:
        qpos[place + 1 :, 2] += by
    return dataclasses.replace(original, actions=actions, qpos=qpos)


def test_the_last_bit_of_an_action_counts_and_a_place_from_a_centimetre_on() -> None:
    a = trace(steps=20)
    assert divergence(a, a) == Divergence(action=None, place=None)
    assert divergence(a, changed(a, action=3, place=7)) == Divergence(action=3, place=7)
    assert divergence(a, changed(a, action=3, place=7, by=APART / 2)) == Divergence(action=3, place=None)
    assert str(divergence(a, changed(a, action=3, place=7))) == "other actions from step 3, elsewhere from step 7"
    assert str(divergence(a, changed(a, action=3))) == "other actions from step 3, never elsewhere"
    assert str(divergence(a, a)) == "the same actions while both lasted, never elsewhere"
    assert str(divergence(a, changed(a, place=0))) == "the same actions while both lasted, elsewhere from step 0"


def test_only_steps_that_both_have_are_compared() -> None:
    a = trace(steps=20)
    longer = changed(a, action=15, place=15)
    short = dataclasses.replace(a, actions=a.actions[:15], qpos=a.qpos[:16])
    assert divergence(short, longer) == divergence(longer, short) == Divergence(action=None, place=None)


def test_other_episodes_are_refused() -> None:
    a = trace(steps=20)
    with pytest.raises(TraceError, match="expected two traces of one episode"):
        divergence(a, dataclasses.replace(a, episode_id="libero_spatial/00/01/r0"))
    with pytest.raises(TraceError, match="with 5 coordinates and libero_spatial/00/00/r0 with 4"):
        divergence(a, dataclasses.replace(a, qpos=a.qpos[:, :4]))


def test_episodes_without_both_traces_are_left_out(tmp_path: Path) -> None:
    other = "libero_spatial/00/01/r0"
    for folder, of in (("a", (EPISODE, other)), ("b", (EPISODE,))):
        for episode_id in of:
            write_trace(tmp_path / folder / trace_path(episode_id), trace(episode_id, steps=9))
    (tmp_path / "b" / trace_path(other)).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / "b" / trace_path(other)).write_bytes(b"PK cut off")
    found = divergences(tmp_path / "a", tmp_path / "b", [EPISODE, other])
    assert found == {EPISODE: Divergence(action=None, place=None)}

from __future__ import annotations

import numpy as np
import pytest

from harness.sim.clock import ObservationClock


def make_clock() -> ObservationClock:
    return ObservationClock(timestep_s=0.002, sampling_period_s=1 / 20)


@pytest.mark.sim
@pytest.mark.parametrize("forced", [0, 1, 2, 3, 7])
def test_equals_robosuites_observable(forced: int) -> None:
    from robosuite.utils.observables import Observable, sensor

    from harness.sim import stack  # noqa: F401

    samples = [0]

    @sensor(modality="test")
    def count(_: object) -> np.ndarray:
        samples[0] += 1
        return np.zeros(2)

    theirs, ours = Observable(name="count", sensor=count, sampling_rate=20), make_clock()
    for reset in range(3):
        theirs.reset()
        ours.reset()
        for substep in range(forced + 25 * 700):
            before = samples[0]
            theirs.update(timestep=0.002, obs_cache={}, force=substep < forced)
            assert ours.tick(force=substep < forced) == (samples[0] > before), (reset, substep)


def test_after_reset_and_init_state_the_sample_falls_on_substep_24_of_25() -> None:
    clock = make_clock()
    clock.tick(force=True)
    clock.tick(force=True)
    assert {clock.sampling_substep(25) for _ in range(600)} == {23}


def test_each_further_forced_update_moves_it_by_one() -> None:
    for extra in range(4):
        clock = make_clock()
        for _ in range(2 + extra):
            clock.tick(force=True)
        assert clock.sampling_substep(25) == 23 - extra

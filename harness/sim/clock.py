"""When robosuite samples an observation.

robosuite's `Observable.update` runs after every 2 ms substep and samples once per 50 ms, at the first
update after its timer wrapped. A forced update (one in `reset`, one in `set_init_state`) also advances
the timer, so after the usual start the sample falls on substep 24 of 25. The timer is a float sum;
the same additions are made here so that rounding shifts the sample exactly when it does upstream.
"""

from __future__ import annotations

import functools


class ObservationClock:
    """The timer of robosuite's observables, which all tick together.

    Args:
        timestep_s: simulated time per substep.
        sampling_period_s: time between samples, 1 / control frequency.
    """

    def __init__(self, *, timestep_s: float, sampling_period_s: float) -> None:
        self._timestep_s = timestep_s
        self._period_s = sampling_period_s
        self._elapsed_s = 0.0
        self._sampled = False

    def reset(self) -> None:
        """As `Observable.reset`: the sampled flag survives."""
        self._elapsed_s = 0.0

    def tick(self, *, force: bool = False) -> bool:
        """Advance by one substep; whether a sample is taken now."""
        self._elapsed_s, self._sampled, sample = _tick(
            self._elapsed_s, self._sampled, self._timestep_s, self._period_s, force=force
        )
        return sample

    def sampling_substep(self, substeps: int) -> int:
        """Advance by one control step; the last substep that samples, or -1 if none does."""
        self._elapsed_s, self._sampled, last = _sampling_substep(
            self._elapsed_s, self._sampled, self._timestep_s, self._period_s, substeps
        )
        return last


def _tick(
    elapsed_s: float, sampled: bool, timestep_s: float, period_s: float, *, force: bool
) -> tuple[float, bool, bool]:
    elapsed_s += timestep_s
    sample = force or (not sampled and period_s >= elapsed_s)
    if sample:
        sampled = True
    if elapsed_s >= period_s:
        sample = sample or not sampled
        elapsed_s %= period_s
        sampled = False
    return elapsed_s, sampled, sample


@functools.lru_cache(maxsize=4096)  # every episode begins alike
def _sampling_substep(
    elapsed_s: float, sampled: bool, timestep_s: float, period_s: float, substeps: int
) -> tuple[float, bool, int]:
    last = -1
    for substep in range(substeps):
        elapsed_s, sampled, sample = _tick(elapsed_s, sampled, timestep_s, period_s, force=False)
        if sample:
            last = substep
    return elapsed_s, sampled, last

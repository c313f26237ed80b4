"""What a sample is: an observation and the chunk of actions that follows it, never beyond its demonstration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.demonstrations.decoded_set import DemonstrationSet, EpisodeRange


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """The samples of some demonstrations: one per step that has images."""

    steps: NDArray[np.int64]
    """(M,): each sample's step among all steps of the set; its chunk begins there."""
    images: NDArray[np.int64]
    """(M,): the step's place among all images of the set."""
    ends: NDArray[np.int64]
    """(M,): where the sample's demonstration ends, exclusive: actions from there on are padding."""
    instructions: NDArray[np.int64]
    """(M,): index into the set's instructions."""

    def __len__(self) -> int:
        return len(self.steps)


def make_windows(demonstrations: DemonstrationSet, episodes: list[EpisodeRange]) -> Windows:
    """The samples of `episodes`, which are among the set's."""
    index = {instruction: i for i, instruction in enumerate(demonstrations.instructions)}
    lengths = [episode.images for episode in episodes]
    return Windows(
        steps=np.concatenate([np.arange(e.first, e.end, e.image_every) for e in episodes]).astype(np.int64),
        images=np.concatenate([np.arange(e.first_image, e.first_image + e.images) for e in episodes]).astype(np.int64),
        ends=np.repeat([e.end for e in episodes], lengths).astype(np.int64),
        instructions=np.repeat([index[e.instruction] for e in episodes], lengths).astype(np.int64),
    )


def split_episodes(
    episodes: tuple[EpisodeRange, ...], validation_fraction: float, seed: int
) -> tuple[list[EpisodeRange], list[EpisodeRange]]:
    """(training, validation): whole demonstrations, the same fraction of every task's, drawn by `seed`.

    A task keeps at least one demonstration for training; one with a single demonstration is not validated.

    Raises:
        ValueError: the fraction is not in [0, 1).
    """
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"--validation-fraction: expected at least 0 and below 1, got {validation_fraction}")
    generator = np.random.default_rng(seed)
    held_out: set[int] = set()
    for task in dict.fromkeys(episode.task for episode in episodes):
        places = [place for place, episode in enumerate(episodes) if episode.task == task]
        wanted = 0 if validation_fraction == 0 else max(1, round(validation_fraction * len(places)))
        held_out |= set(generator.permutation(places)[: min(wanted, len(places) - 1)].tolist())
    training = [episode for place, episode in enumerate(episodes) if place not in held_out]
    return training, [episodes[place] for place in sorted(held_out)]


class SampleOrder:
    """An endless shuffled order of samples: pass after pass over all of them, each in an order of its own.

    Which sample is the k-th is a function of (samples, seed, k) and nothing else, so that a resumed run, or one with another number
    of processes, sees what an undisturbed one would.
    """

    def __init__(self, samples: int, seed: int) -> None:
        self._samples, self._seed = samples, seed
        self._epoch = -1
        self._permutation = np.empty(0, dtype=np.int64)

    def indices(self, first: int, count: int) -> NDArray[np.int64]:
        """(count,): samples number `first` … `first` + `count` - 1 of the order."""
        parts = []
        while count > 0:
            epoch, place = divmod(first, self._samples)
            part = self._of_epoch(epoch)[place : place + count]
            parts.append(part)
            first, count = first + len(part), count - len(part)
        return np.concatenate(parts)

    def _of_epoch(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            generator = np.random.default_rng(np.random.SeedSequence([self._seed, epoch]))
            self._epoch, self._permutation = epoch, generator.permutation(self._samples)
        return self._permutation

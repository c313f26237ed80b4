"""A decoded set that several processes fill at once.

The length of each demonstration is known before any is drawn, so every one has its place. Who has drawn one writes it there, and
then a small file that says so. After an interruption the rest is drawn; what is there already is checked by its digest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.demonstrations.decoded_set import (
    IMAGES,
    UNREADABLE,
    EpisodeRange,
    conclude_decoded_set,
    is_decoded_set,
    sha256_of,
)
from tasks.demonstrations.hdf5 import DemonstrationError
from tasks.interface import ImageConvention

PLAN, FINISHED = "plan.json", "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEpisode:
    """A demonstration's place in a set that is being filled."""

    folder: Path
    place: EpisodeRange
    """Its `init_state_sha256` is empty until it is drawn."""
    final_state_sha256: str
    """Of the state it ends in: tells it from another attempt at the same."""
    convention: ImageConvention

    @property
    def _note(self) -> Path:
        return self.folder / FINISHED / f"{self.place.first}.npz"

    def write(
        self,
        images: NDArray[np.uint8],
        proprio: NDArray[np.float32],
        actions: NDArray[np.float64],
        init_state_sha256: str,
    ) -> None:
        """Put the demonstration in its place.

        Args:
            images: (T, C, H, W, 3) in the set's convention: of the steps that are to have images.
            proprio: (S, 8) of all steps.
            actions: (S, 7)

        Raises:
            ValueError: it has another number of steps or images than planned.
            OSError: the disk is full, or the folder cannot be written.
        """
        steps = self.place.end - self.place.first
        if not len(proprio) == len(actions) == steps or len(images) != self.place.images:
            raise ValueError(
                f"{self.place.name}: planned with {steps} steps and {self.place.images} images, got {len(actions)} and {len(images)}"
            )
        pixels = np.ascontiguousarray(images)
        with (self.folder / IMAGES).open("r+b") as file:  # a full disk is an error here, a signal where mapped
            file.seek(self.place.first_image * pixels[0].nbytes)
            file.write(pixels.data)
        temporary = self._note.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(
                file,
                proprio=proprio,
                actions=actions,
                init_state=init_state_sha256,
                digest=_digest(pixels, proprio, actions),
            )
        temporary.replace(self._note)

    def written(self) -> _Written | None:
        """What `write` was given; None where it was not called, or its file is damaged."""
        try:
            with np.load(self._note) as note:
                return _Written(
                    proprio=note["proprio"],
                    actions=note["actions"],
                    init_state_sha256=str(note["init_state"]),
                    digest=str(note["digest"]),
                )
        except UNREADABLE:
            return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Written:
    """What is known of a drawn demonstration beside its images."""

    proprio: NDArray[np.float32]
    actions: NDArray[np.float64]
    init_state_sha256: str
    digest: str
    """Of all of it."""


class PlannedSet:
    """A decoded set to be filled.

    Args:
        place: where it will lie when it is whole; until then `.NAME.partial` beside it.
        episodes: the demonstrations one after the other, and the fingerprint of the state each ends in.
        cameras: order of the images' second axis.
        size_px: height and width of the images.
        convention: of the images.
    """

    def __init__(
        self,
        place: Path,
        episodes: Sequence[tuple[EpisodeRange, str]],
        *,
        cameras: Sequence[str],
        size_px: int,
        convention: ImageConvention,
    ) -> None:
        self.place = place
        self._partial = place.with_name(f".{place.name}.partial")
        self._image_shape = (len(cameras), size_px, size_px, 3)
        self._cameras, self._convention = tuple(cameras), convention
        self.episodes = tuple(
            PlannedEpisode(folder=self._partial, place=range_, final_state_sha256=ends_in, convention=convention)
            for range_, ends_in in episodes
        )

    def is_whole(self) -> bool:
        """Whether the set lies in its place.

        Raises:
            DemonstrationError: another one lies there.
        """
        if not self.place.exists():
            return False
        if is_decoded_set(self.place) and _text(self.place / PLAN) == self._plan():
            return True
        raise DemonstrationError(
            f"{self.place} is there already, and it is not the set of {len(self.episodes)} demonstrations of "
            f"{self._image_shape[1]} px asked for. Remove it, or choose another --output."
        )

    def begin(self) -> list[PlannedEpisode]:
        """Make room, or go on with what an interrupted run left; returns the demonstrations still to be drawn.

        Raises:
            DemonstrationError: an interrupted run left a set of other demonstrations.
            OSError: the disk has no room, or the folder cannot be written.
        """
        if not (self._partial / PLAN).is_file():  # written last
            shutil.rmtree(self._partial, ignore_errors=True)
        elif _text(self._partial / PLAN) != self._plan():
            raise DemonstrationError(
                f"{self._partial} holds a half-drawn set of other demonstrations or another size. Repeat the command that began it, "
                "or remove it; the traces are kept."
            )
        if not self._partial.exists():
            self._make_room()
        return [episode for episode in self.episodes if not self._is_drawn(episode)]

    def finish(self) -> None:
        """Move the filled set into its place.

        Raises:
            DemonstrationError: a demonstration is missing.
            OSError: the folder cannot be written.
        """
        written = [episode.written() for episode in self.episodes]
        known = [one for one in written if one is not None]
        if len(known) < len(written):
            raise DemonstrationError(f"{self._partial}: {len(written) - len(known)} demonstrations are not drawn yet")
        conclude_decoded_set(
            self._partial,
            image_shape=self._image_shape,
            proprio=[one.proprio for one in known],
            actions=[one.actions for one in known],
            episodes=[
                replace(episode.place, init_state_sha256=one.init_state_sha256)
                for episode, one in zip(self.episodes, known, strict=True)
            ],
            sha256=sha256_of([one.digest for one in known]),
            timings={self.place.name: "before"},
            cameras=self._cameras,
            convention=self._convention,
        )
        self._partial.rename(self.place)
        shutil.rmtree(self.place / FINISHED, ignore_errors=True)

    def _make_room(self) -> None:
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        last = self.episodes[-1].place
        size = (last.first_image + last.images) * int(np.prod(self._image_shape))
        if size > (free := shutil.disk_usage(self._partial.parent).free):
            raise OSError(
                f"{self.place} will take {size / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} GiB free. "
                "Choose a smaller --size or a larger --image-every, or another disk with --output."
            )
        (self._partial / FINISHED).mkdir(parents=True)
        with (self._partial / IMAGES).open("wb") as images:
            images.truncate(size)
        (self._partial / f".{PLAN}.tmp").write_text(self._plan())
        (self._partial / f".{PLAN}.tmp").replace(self._partial / PLAN)

    def _plan(self) -> str:
        """JSON of what is asked for."""
        return json.dumps(
            {
                "images": self._image_shape,
                "cameras": self._cameras,
                "convention": self._convention,
                "episodes": [asdict(e.place) | {"final_state_sha256": e.final_state_sha256} for e in self.episodes],
            }
        )

    def _is_drawn(self, episode: PlannedEpisode) -> bool:
        written = episode.written()
        if written is None:
            return False
        row = int(np.prod(self._image_shape))
        with (self._partial / IMAGES).open("rb") as images:
            images.seek(episode.place.first_image * row)
            pixels = np.frombuffer(images.read(episode.place.images * row), dtype=np.uint8)
        return _digest(pixels, written.proprio, written.actions) == written.digest


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


def _digest(images: NDArray[np.uint8], proprio: NDArray[np.float32], actions: NDArray[np.float64]) -> str:
    digest = hashlib.sha256()
    for values in (images, proprio, actions):
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()

"""Decoded demonstrations: a folder whose images are mapped into memory as they lie there.

    images.bin     uint8 (M, C, H, W, 3): of every step of every demonstration, one after the other, or of every second, third, …
    vectors.npz    proprio float32 (N, 8), actions float64 (N, 7) of every step
    meta.json      shapes, cameras, convention, each demonstration's place; written last

The trainer's cache consists of such folders, and `vla-collect --format cache` draws straight into one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tasks.demonstrations.episodes import Episode
from tasks.demonstrations.hdf5 import DemonstrationError
from tasks.image_conventions import convert_images
from tasks.interface import ACTION_DIM, PROPRIO_DIM, ImageConvention

IMAGES, VECTORS, META = "images.bin", "vectors.npz", "meta.json"
FORMAT = "decoded demonstrations 2"
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""What reading a damaged archive of arrays raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRange:
    """One demonstration's place among all steps: [first, end)."""

    name: str
    task: str
    suite: str
    instruction: str
    first: int
    end: int
    first_image: int
    """The place of its images among all images."""
    image_every: int
    """There are images of its steps 0, `image_every`, 2 · `image_every`, …"""
    init_state_sha256: str

    @property
    def images(self) -> int:
        """How many steps have images."""
        return -(-(self.end - self.first) // self.image_every)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DemonstrationSet:
    """Every step of the chosen demonstrations, one after the other; observation t was taken just before action t."""

    image_parts: tuple[NDArray[np.uint8], ...]
    """One after the other (M, C, H, W, 3), each memory-mapped (copy on write); at the size they were recorded in."""
    proprio: NDArray[np.float32]
    """(N, 8)"""
    actions: NDArray[np.float64]
    """(N, 7)"""
    episodes: tuple[EpisodeRange, ...]
    sha256: str
    """Of what the set was made of: the data's fingerprint in a checkpoint."""
    timings: dict[str, str]
    """File → whether its observations were taken before or after the action of the same index."""
    cameras: tuple[str, ...]
    """The order of the images' second axis."""
    convention: ImageConvention

    @property
    def images(self) -> NDArray[np.uint8]:
        """(M, C, H, W, 3): the parts as one array; several are copied into memory."""
        return self.image_parts[0] if len(self.image_parts) == 1 else np.concatenate(self.image_parts)

    @property
    def image_px(self) -> int:
        """Height and width of the images."""
        return self.image_parts[0].shape[2]

    @property
    def instructions(self) -> tuple[str, ...]:
        """Every instruction once, in order of appearance."""
        return tuple(dict.fromkeys(episode.instruction for episode in self.episodes))


def is_decoded_set(path: Path) -> bool:
    """Whether a folder is one."""
    return (path / META).is_file() and (path / IMAGES).is_file()


def read_decoded_set(folder: Path) -> DemonstrationSet:
    """Map a folder into memory.

    Raises:
        DemonstrationError: it is damaged, or of a format this version does not know.
    """
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text())
        with np.load(folder / VECTORS) as vectors:
            proprio, actions = vectors["proprio"], vectors["actions"]
    except UNREADABLE as error:
        raise DemonstrationError(f"{folder}: not readable as decoded demonstrations; remove it: {error}") from error
    if meta.get("format") != FORMAT:
        raise DemonstrationError(f"{folder}: expected the format {FORMAT!r}, got {meta.get('format')!r}; make it again")
    shape: tuple[int, ...] = tuple(meta["shape"])
    episodes = tuple(EpisodeRange(**episode) for episode in meta["episodes"])
    there, wanted, steps = (folder / IMAGES).stat().st_size, int(np.prod(shape)), episodes[-1].end
    if there != wanted or proprio.shape != (steps, PROPRIO_DIM) or actions.shape != (steps, ACTION_DIM):
        raise DemonstrationError(
            f"{folder}: expected {wanted} bytes of images and vectors of {steps} steps, got {there} bytes, proprio "
            f"{proprio.shape}, actions {actions.shape}. It is damaged: make it again."
        )
    return DemonstrationSet(
        image_parts=(np.memmap(folder / IMAGES, dtype=np.uint8, mode="c", shape=shape),),
        proprio=proprio,
        actions=actions,
        episodes=episodes,
        sha256=meta["sha256"],
        timings=meta["timings"],
        cameras=tuple(meta["cameras"]),
        convention=meta["convention"],
    )


def with_cameras(whole: DemonstrationSet, cameras: Sequence[str]) -> DemonstrationSet:
    """A set as these cameras saw it, its images where they are mapped; unchanged where these are not neighbours in its order."""
    names, wanted = whole.cameras, tuple(cameras)
    for first in range(len(names)):
        if names[first : first + len(wanted)] == wanted:
            parts = tuple(part[:, first : first + len(wanted)] for part in whole.image_parts)
            return replace(whole, image_parts=parts, cameras=wanted)
    return whole


def join_decoded_sets(sets: Sequence[DemonstrationSet], sha256: str) -> DemonstrationSet:
    """Several sets as one; their images stay where they are mapped.

    Args:
        sets: of the same cameras and convention.
        sha256: of the whole.

    Raises:
        DemonstrationError: their images are of different sizes.
    """
    sizes = sorted({one.image_px for one in sets})
    if len(sizes) > 1:
        raise DemonstrationError(f"expected decoded sets with images of one size, got {sizes} px. Draw them alike.")
    steps = itertools.accumulate((len(one.actions) for one in sets), initial=0)
    images = itertools.accumulate((sum(map(len, one.image_parts)) for one in sets), initial=0)
    return replace(
        sets[0],
        image_parts=tuple(part for one in sets for part in one.image_parts),
        proprio=np.concatenate([one.proprio for one in sets]),
        actions=np.concatenate([one.actions for one in sets]),
        episodes=tuple(
            replace(
                episode, first=episode.first + step, end=episode.end + step, first_image=episode.first_image + image
            )
            for one, step, image in zip(sets, steps, images, strict=False)  # what both end with is the whole
            for episode in one.episodes
        ),
        sha256=sha256,
        timings={name: timing for one in sets for name, timing in one.timings.items()},
    )


def conclude_decoded_set(
    folder: Path,
    *,
    image_shape: Sequence[int],
    proprio: Sequence[NDArray[np.float32]],
    actions: Sequence[NDArray[np.float64]],
    episodes: Sequence[EpisodeRange],
    sha256: str,
    timings: dict[str, str],
    cameras: Sequence[str],
    convention: ImageConvention,
) -> None:
    """Write what stands beside the images, `meta.json` last.

    Args:
        folder: holds `images.bin`, complete.
        image_shape: (C, H, W, 3)
        proprio: of each demonstration, likewise `actions`.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    with (folder / IMAGES).open("rb") as images:
        os.fsync(images.fileno())
    np.savez(folder / VECTORS, proprio=np.concatenate(proprio), actions=np.concatenate(actions))
    meta = {
        "format": FORMAT,
        "sha256": sha256,
        "shape": [episodes[-1].first_image + episodes[-1].images, *image_shape],
        "cameras": list(cameras),
        "convention": convention,
        "timings": timings,
        "episodes": [asdict(episode) for episode in episodes],
    }
    temporary = folder / f".{META}.tmp"
    temporary.write_text(json.dumps(meta))
    temporary.replace(folder / META)


class DecodedSetReader:
    """The demonstrations of one task in a decoded set, one at a time; a context manager.

    Args:
        folder: the set.
        task: LIBERO's name.
        suite: the task's.
        cameras: in the order wanted.
        convention: of the images wanted.

    Raises:
        DemonstrationError: the set is damaged, or a camera is missing.
    """

    timing = "before"

    def __init__(
        self, folder: Path, *, task: str, suite: str, cameras: Sequence[str], convention: ImageConvention
    ) -> None:
        self._set, self._folder, self._convention = read_decoded_set(folder), folder, convention
        for camera in cameras:
            if camera not in self._set.cameras:
                raise DemonstrationError(
                    f"{folder}: no images of camera {camera}; it has {', '.join(self._set.cameras)}. Choose with --cameras."
                )
        self._cameras = [self._set.cameras.index(camera) for camera in cameras]
        self._episodes = {e.name: e for e in self._set.episodes if (e.task, e.suite) == (task, suite)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self._set

    @property
    def demos(self) -> tuple[str, ...]:
        """Names of the demonstrations, in their order."""
        return tuple(self._episodes)

    def episode(self, demo: str) -> Episode:
        """One demonstration.

        Raises:
            DemonstrationError: not all its steps have images.
        """
        place = self._episodes[demo]
        if place.image_every > 1:
            raise DemonstrationError(
                f"{self._folder} has images of every {place.image_every}th step only, so it cannot be copied. Learn from it where it "
                "lies: beside other decoded sets only, with its cameras in its order, or one of them, and its convention."
            )
        steps = slice(place.first, place.end)
        images = self._set.images[place.first_image : place.first_image + place.images][:, self._cameras]
        return Episode(
            name=f"{self._folder} {demo}",
            images=convert_images(images, self._set.convention, self._convention),
            proprio=self._set.proprio[steps],
            actions=self._set.actions[steps],
            init_state_sha256=place.init_state_sha256,
        )


def sha256_of(recipe: Any) -> str:
    """Fingerprint of something that JSON can say."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()

"""Demonstrations decoded once into memory-mapped arrays.

An entry is a folder named by what it was made of (the files' contents, the selection, cameras, convention), written beside its place
and moved there when it is whole: it is never stale, and never half.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tasks.cache_folder import cache_folder
from tasks.demonstrations import DemonstrationError, DemonstrationSource, Episode
from tasks.demonstrations.decoded_set import (
    IMAGES,
    META,
    DemonstrationSet,
    EpisodeRange,
    conclude_decoded_set,
    is_decoded_set,
    join_decoded_sets,
    read_decoded_set,
    sha256_of,
    with_cameras,
)
from tasks.demonstrations.reading import fingerprint, open_source
from tasks.demonstrations.timing import ObservationTiming
from tasks.interface import ImageConvention

CACHE_VERSION = 3


def default_cache_folder() -> Path:
    """The demonstrations' own folder in the project's cache."""
    return cache_folder() / "demonstrations"


def load_demonstrations(
    sources: Sequence[DemonstrationSource],
    *,
    cameras: Sequence[str],
    convention: ImageConvention,
    timing: ObservationTiming | None,
    folder: Path,
    progress: Callable[[str], None],
) -> DemonstrationSet:
    """The demonstrations of all sources, from the cache, where an entry is made if there is none.

    Tasks of decoded sets whose images are what is wanted are mapped where they lie; nothing is copied.

    Args:
        timing: of the observations in the files; None: read off each file.
        folder: where entries lie.
        progress: told what is being done, where it takes time.

    Raises:
        DemonstrationError: a file is not what it should be; the message names it.
        OSError: the cache cannot be written.
    """
    prints = {source.file: fingerprint(source.file) for source in sources}
    recipe = {
        "version": CACHE_VERSION,
        "sources": [asdict(s) | {"file": _name(s.file), "sha256": prints[s.file]} for s in sources],
        "cameras": list(cameras),
        "convention": convention,
        "timing": timing,
    }
    key = sha256_of(recipe)
    files = list(dict.fromkeys(source.file for source in sources))
    if all(is_decoded_set(file) for file in files):
        sets = [with_cameras(_chosen(file, [s for s in sources if s.file == file]), cameras) for file in files]
        if all(one.cameras == tuple(cameras) and one.convention == convention for one in sets):
            return join_decoded_sets(sets, key)
    entry = folder / key[:32]
    if is_decoded_set(entry):
        return read_decoded_set(entry)
    timings: dict[str, str] = {}
    try:
        with _EntryWriter(entry) as writer:
            for number, source in enumerate(sources, start=1):
                progress(f"decoding demonstrations, file {number} of {len(sources)}: {source.file.name}")
                with open_source(source, cameras=cameras, convention=convention, timing=timing) as reader:
                    timings[source.file.name] = reader.timing
                    for demo in reader.demos:
                        writer.add(reader.episode(demo), source)
            writer.finish(sha256=key, timings=timings, cameras=cameras, convention=convention)
    except OSError as error:
        raise OSError(
            f"cannot write the cache of demonstrations in {folder}: {error.strerror or error}. Free some space there, "
            "or put it elsewhere with VLA_VGGT_CACHE."
        ) from error
    return read_decoded_set(entry)


def _name(path: Path) -> str:
    """A file's name; a folder may lie anywhere, and be called after a revision."""
    return "" if path.is_dir() else path.name


def _chosen(folder: Path, sources: Sequence[DemonstrationSource]) -> DemonstrationSet:
    """The sources' tasks of a set, with the sources' words for them; names tell sets apart."""
    whole = read_decoded_set(folder)
    instructions = {(source.task, source.suite): source.instruction for source in sources}
    episodes = tuple(
        replace(episode, name=f"{folder} {episode.name}", instruction=instructions[episode.task, episode.suite])
        for episode in whole.episodes
        if (episode.task, episode.suite) in instructions
    )
    return replace(whole, episodes=episodes)


class _EntryWriter:
    """Writes one entry; a context manager that leaves nothing behind unless `finish` was called."""

    def __init__(self, entry: Path) -> None:
        entry.parent.mkdir(parents=True, exist_ok=True)
        self._entry = entry
        self._folder = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
        self._images = (self._folder / IMAGES).open("wb")
        self._shape: tuple[int, ...] | None = None
        self._first_name = ""
        self._proprio: list[NDArray[np.float32]] = []
        self._actions: list[NDArray[np.float64]] = []
        self._episodes: list[EpisodeRange] = []
        self._steps = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._images.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, episode: Episode, source: DemonstrationSource) -> None:
        shape = episode.images.shape[1:]
        if self._shape is not None and shape != self._shape:
            raise DemonstrationError(
                f"expected images of one size, got {shape[1]}×{shape[2]} in {episode.name} and "
                f"{self._shape[1]}×{self._shape[2]} in {self._first_name}. Train on files of one size."
            )
        if self._shape is None:
            self._shape, self._first_name = shape, episode.name
        self._images.write(np.ascontiguousarray(episode.images).data)
        self._proprio.append(episode.proprio)
        self._actions.append(episode.actions)
        steps = len(episode.actions)
        self._episodes.append(
            EpisodeRange(
                name=episode.name,
                task=source.task,
                suite=source.suite,
                instruction=source.instruction,
                first=self._steps,
                end=self._steps + steps,
                first_image=self._steps,
                image_every=1,
                init_state_sha256=episode.init_state_sha256,
            )
        )
        self._steps += steps

    def finish(self, **described: Any) -> None:
        assert self._shape is not None
        self._images.close()
        conclude_decoded_set(
            self._folder,
            image_shape=self._shape,
            proprio=self._proprio,
            actions=self._actions,
            episodes=self._episodes,
            **described,
        )
        try:
            self._folder.rename(self._entry)
        except OSError:
            if not (self._entry / META).is_file():  # else another process has made it meanwhile
                raise

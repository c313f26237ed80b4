"""Demonstrations decoded once into memory-mapped arrays.

An entry is a folder named by what it was made of (the files' contents, the selection, cameras, convention), written beside its place
and moved there when it is whole: it is never stale, and never half.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tasks.cache_folder import cache_folder
from tasks.demonstrations import DemonstrationError, DemonstrationSource, Episode, EpisodeReader
from tasks.demonstrations.timing import ObservationTiming
from tasks.interface import ImageConvention

CACHE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRange:
    """One demonstration's place among all steps: [first, end)."""

    name: str
    task: str
    suite: str
    instruction: str
    first: int
    end: int
    init_state_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DemonstrationSet:
    """Every step of the chosen demonstrations, one after the other."""

    images: NDArray[np.uint8]
    """(N, C, H, W, 3), memory-mapped (copy on write); at the size they were recorded in."""
    proprio: NDArray[np.float32]
    """(N, 8)"""
    actions: NDArray[np.float64]
    """(N, 7)"""
    episodes: tuple[EpisodeRange, ...]
    sha256: str
    """Of what the set was made of: the data's fingerprint in a checkpoint."""
    timings: dict[str, str]
    """File → whether its observations were taken before or after the action of the same index."""

    @property
    def instructions(self) -> tuple[str, ...]:
        """Every instruction once, in order of appearance."""
        return tuple(dict.fromkeys(episode.instruction for episode in self.episodes))


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

    Args:
        timing: of the observations in the files; None: read off each file.
        folder: where entries lie.
        progress: told what is being done, where it takes time.

    Raises:
        DemonstrationError: a file is not what it should be; the message names it.
        OSError: the cache cannot be written.
    """
    recipe = {
        "version": CACHE_VERSION,
        "sources": [asdict(s) | {"file": s.file.name, "sha256": _file_sha256(s.file)} for s in sources],
        "cameras": list(cameras),
        "convention": convention,
        "timing": timing,
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    entry = folder / key[:32]
    if (entry / "meta.json").is_file():
        return _read(entry)
    timings: dict[str, str] = {}
    try:
        with _EntryWriter(entry) as writer:
            for number, source in enumerate(sources, start=1):
                progress(f"decoding demonstrations, file {number} of {len(sources)}: {source.file.name}")
                with EpisodeReader(source.file, cameras=cameras, convention=convention, timing=timing) as reader:
                    timings[source.file.name] = reader.timing
                    for demo in reader.demos:
                        writer.add(reader.episode(demo), source)
            writer.finish(key, timings)
    except OSError as error:
        raise OSError(
            f"cannot write the cache of demonstrations in {folder}: {error.strerror or error}. Free some space there, "
            "or put it elsewhere with VLA_VGGT_CACHE."
        ) from error
    return _read(entry)


class _EntryWriter:
    """Writes one entry; a context manager that leaves nothing behind unless `finish` was called."""

    def __init__(self, entry: Path) -> None:
        entry.parent.mkdir(parents=True, exist_ok=True)
        self._entry = entry
        self._folder = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
        self._images = (self._folder / "images.bin").open("wb")
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
                init_state_sha256=episode.init_state_sha256,
            )
        )
        self._steps += steps

    def finish(self, key: str, timings: dict[str, str]) -> None:
        assert self._shape is not None
        self._images.close()
        np.savez(
            self._folder / "vectors.npz", proprio=np.concatenate(self._proprio), actions=np.concatenate(self._actions)
        )
        meta = {
            "sha256": key,
            "shape": [self._steps, *self._shape],
            "timings": timings,
            "episodes": [asdict(episode) for episode in self._episodes],
        }
        (self._folder / "meta.json").write_text(json.dumps(meta))
        try:
            self._folder.rename(self._entry)
        except OSError:
            if not (self._entry / "meta.json").is_file():  # else another process has made it meanwhile
                raise


def _read(entry: Path) -> DemonstrationSet:
    meta: dict[str, Any] = json.loads((entry / "meta.json").read_text())
    with np.load(entry / "vectors.npz") as vectors:
        proprio, actions = vectors["proprio"], vectors["actions"]
    return DemonstrationSet(
        images=np.memmap(entry / "images.bin", dtype=np.uint8, mode="c", shape=tuple(meta["shape"])),
        proprio=proprio,
        actions=actions,
        episodes=tuple(EpisodeRange(**episode) for episode in meta["episodes"]),
        sha256=meta["sha256"],
        timings=meta["timings"],
    )


def _file_sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()

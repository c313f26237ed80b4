"""Writes LIBERO demonstrations as a LeRobot dataset, version 3.0, without LeRobot.

The layout is that of `lerobot.datasets` 0.4 (`meta/info.json`, `meta/tasks.parquet`, `meta/episodes`, `data`, `videos`), the
feature names and conventions those of the LIBERO sets on the hub: images rotated by 180 degrees, a state of eef position, axis-angle
and finger positions. One data file and one video per camera for each file that is read, so that no more than a task lies in memory.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.demonstrations.episodes import Episode, EpisodeReader
from tasks.interface import ACTION_DIM, CAMERAS, CONTROL_HZ, PROPRIO_DIM

VERSION = "v3.0"
CAMERA_FEATURES = {"agentview": "observation.images.image", "robot0_eye_in_hand": "observation.images.image2"}
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
CHUNK = "chunk-000/file-{index:03d}"
MAX_FILES = 1000
"""In one chunk."""

Stats = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotSource:
    """Demonstrations of one task."""

    file: Path
    """LIBERO's HDF5."""
    instruction: str


class LeRobotWriteError(ValueError):
    """The demonstrations cannot be one LeRobot dataset."""


def write_lerobot(sources: Sequence[LeRobotSource], folder: Path) -> None:
    """Write the demonstrations of some tasks as one dataset; the folder appears whole or not at all.

    Raises:
        LeRobotWriteError: there is none, there are too many files, or the images differ in size.
        FileExistsError: the folder is there.
        DemonstrationError: a file cannot be read.
        OSError: the disk is full, or the folder cannot be written.
    """
    if not 1 <= len(sources) <= MAX_FILES:
        raise LeRobotWriteError(f"expected 1 to {MAX_FILES} files of demonstrations, got {len(sources)}")
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; remove it, or choose another folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        _Writer(temporary, sources).write()
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Writer:
    def __init__(self, folder: Path, sources: Sequence[LeRobotSource]) -> None:
        self._folder = folder
        self._sources = sources
        self._tasks = list(dict.fromkeys(source.instruction for source in sources))
        self._episodes: list[dict[str, Any]] = []
        self._summaries: dict[str, list[_Summary]] = {}
        self._frames = 0
        self._size: tuple[int, ...] = ()

    def write(self) -> None:
        for index, source in enumerate(self._sources):
            self._write_file(index, source)
        stats = {feature: _merged(summaries).stats() for feature, summaries in self._summaries.items()}
        _write_json(self._folder / "meta/stats.json", stats)
        _write_json(self._folder / "meta/info.json", self._info())
        _write_parquet(
            self._folder / "meta/tasks.parquet",
            {"task_index": np.arange(len(self._tasks))},
            index=("task", self._tasks),
        )
        columns = {key: [episode[key] for episode in self._episodes] for key in self._episodes[0]}
        _write_parquet(self._folder / f"meta/episodes/{CHUNK.format(index=0)}.parquet", columns)

    def _write_file(self, index: int, source: LeRobotSource) -> None:
        rows: list[dict[str, NDArray[Any]]] = []
        videos = {
            camera: _Video(self._folder / f"videos/{feature}/{CHUNK.format(index=index)}.mp4")
            for camera, feature in CAMERA_FEATURES.items()
        }
        start = 0
        with EpisodeReader(source.file, cameras=CAMERAS, convention="rotated_180") as reader:
            for demo in reader.demos:
                episode = reader.episode(demo)
                self._check_size(episode)
                for column, camera in enumerate(CAMERAS):
                    videos[camera].add(episode.images[:, column])
                rows.append(self._add(episode, source, index, start))
                start += len(episode.actions)
        for video in videos.values():
            video.close()
        columns = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
        _write_parquet(self._folder / f"data/{CHUNK.format(index=index)}.parquet", columns)

    def _check_size(self, episode: Episode) -> None:
        size = episode.images.shape[2:4]
        self._size = self._size or size
        if size != self._size or size[0] % 2 or size[1] % 2:
            raise LeRobotWriteError(
                f"{episode.name}: expected images of one even size (H.264 wants it), {self._size[0]}×{self._size[1]} so far, "
                f"got {size[0]}×{size[1]}"
            )

    def _add(self, episode: Episode, source: LeRobotSource, file: int, start: int) -> dict[str, NDArray[Any]]:
        """One episode's rows of the data file; remembers its line of the episodes' table, and its statistics."""
        steps, number = len(episode.actions), len(self._episodes)
        first, self._frames = self._frames, self._frames + steps
        rows: dict[str, NDArray[Any]] = {
            "observation.state": episode.proprio,
            "action": episode.actions.astype(np.float32),
            "timestamp": (np.arange(steps) / CONTROL_HZ).astype(np.float32),
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, number),
            "index": np.arange(first, first + steps),
            "task_index": np.full(steps, self._tasks.index(source.instruction)),
        }
        line: dict[str, Any] = {
            "episode_index": number,
            "tasks": [source.instruction],
            "length": steps,
            "data/chunk_index": 0,
            "data/file_index": file,
            "dataset_from_index": first,
            "dataset_to_index": first + steps,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for feature in CAMERA_FEATURES.values():
            line |= {
                f"videos/{feature}/chunk_index": 0,
                f"videos/{feature}/file_index": file,
                f"videos/{feature}/from_timestamp": start / CONTROL_HZ,
                f"videos/{feature}/to_timestamp": (start + steps) / CONTROL_HZ,
            }
        summaries: dict[str, _Summary] = {
            key: _Numbers(values=values.reshape(steps, -1)) for key, values in rows.items()
        }
        for column, camera in enumerate(CAMERAS):
            summaries[CAMERA_FEATURES[camera]] = _Pixels.of(episode.images[:, column])
        for feature, summary in summaries.items():
            self._summaries.setdefault(feature, []).append(summary)
            line |= {f"stats/{feature}/{name}": value for name, value in summary.stats().items()}
        self._episodes.append(line)
        return rows

    def _info(self) -> dict[str, Any]:
        height, width = self._size
        video = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": CONTROL_HZ,
                "video.channels": 3,
                "has_audio": False,
            },
        }
        counters = {"timestamp": "float32"} | dict.fromkeys(
            ("frame_index", "episode_index", "index", "task_index"), "int64"
        )
        return {
            "codebase_version": VERSION,
            "robot_type": "panda",
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": MAX_FILES,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 500,
            "fps": CONTROL_HZ,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": {
                **{feature: video for feature in CAMERA_FEATURES.values()},
                "observation.state": {
                    "dtype": "float32",
                    "shape": [PROPRIO_DIM],
                    "names": {"motors": list(STATE_NAMES)},
                },
                "action": {"dtype": "float32", "shape": [ACTION_DIM], "names": {"motors": list(ACTION_NAMES)}},
                **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in counters.items()},
            },
        }


STATE_NAMES = ("x", "y", "z", "axis_angle1", "axis_angle2", "axis_angle3", "gripper", "gripper")
ACTION_NAMES = ("x", "y", "z", "axis_angle1", "axis_angle2", "axis_angle3", "gripper")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Numbers:
    """Values whose statistics are wanted: (rows, entries)."""

    values: NDArray[Any]

    def stats(self) -> Stats:
        values = self.values.astype(np.float64)
        quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
        return {
            "min": values.min(axis=0).tolist(),
            "max": values.max(axis=0).tolist(),
            "mean": values.mean(axis=0).tolist(),
            "std": values.std(axis=0).tolist(),
            "count": [len(values)],
            **{name: row.tolist() for name, row in zip(QUANTILES, quantiles, strict=True)},
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pixels:
    """How often each of the 256 values occurs per channel: (3, 256). All statistics are exact from that."""

    counts: NDArray[np.int64]
    frames: int

    @classmethod
    def of(cls, images: NDArray[np.uint8]) -> _Pixels:
        """Of images (T, H, W, 3)."""
        counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)]
        return cls(counts=np.stack(counts), frames=len(images))

    def stats(self) -> Stats:
        """In [0, 1], of shape (3, 1, 1) as LeRobot has them."""
        levels = np.arange(256) / 255.0
        total = self.counts.sum(axis=1)
        mean = self.counts @ levels / total
        seen = self.counts > 0
        cumulative = self.counts.cumsum(axis=1)

        def shaped(values: NDArray[np.float64]) -> list[list[list[float]]]:
            shape: list[list[list[float]]] = values.reshape(3, 1, 1).tolist()
            return shape

        return {
            "min": shaped(levels[seen.argmax(axis=1)]),
            "max": shaped(levels[255 - seen[:, ::-1].argmax(axis=1)]),
            "mean": shaped(mean),
            "std": shaped(np.sqrt(np.maximum(self.counts @ levels**2 / total - mean**2, 0.0))),
            "count": [self.frames],
            **{
                name: shaped(levels[(cumulative >= share * total[:, None]).argmax(axis=1)])
                for name, share in QUANTILES.items()
            },
        }


_Summary = _Numbers | _Pixels


def _merged(summaries: Sequence[_Summary]) -> _Summary:
    pixels = [summary for summary in summaries if isinstance(summary, _Pixels)]
    if pixels:
        return _Pixels(counts=np.sum([p.counts for p in pixels], axis=0), frames=sum(p.frames for p in pixels))
    return _Numbers(values=np.concatenate([s.values for s in summaries if isinstance(s, _Numbers)]))


class _Video:
    """Episodes one after another in one file; every second frame is whole, so that any is found quickly."""

    def __init__(self, file: Path) -> None:
        import av

        self._av = av
        self._sized = False
        file.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(file), mode="w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=CONTROL_HZ)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "18", "preset": "veryfast", "g": "2", "bf": "0"}

    def add(self, images: NDArray[np.uint8]) -> None:
        """Append images (T, H, W, 3)."""
        if not self._sized:
            self._stream.height, self._stream.width = images.shape[1:3]
            self._sized = True
        for packets in self._encoded(images):
            self._container.mux(packets)

    def _encoded(self, images: NDArray[np.uint8]) -> Iterator[Any]:
        for image in images:
            yield self._stream.encode(self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"))

    def close(self) -> None:
        """Write what is left."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=4))


def _write_parquet(file: Path, columns: dict[str, Any], *, index: tuple[str, Sequence[str]] | None = None) -> None:
    """Columns of numbers (n,), of vectors (n, k) or of Python values; `index`: name and values of pandas' row labels."""
    import pandas as pd

    file.parent.mkdir(parents=True, exist_ok=True)
    lists = {key: list(values) if np.ndim(values) > 1 else values for key, values in columns.items()}
    frame = pd.DataFrame(lists)
    if index is not None:
        frame.index = pd.Index(index[1], name=index[0])
    frame.to_parquet(file, index=index is not None, engine="pyarrow")

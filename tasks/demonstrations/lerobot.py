"""Reads LIBERO demonstrations from a LeRobot dataset, version 3.0, without LeRobot (`pyarrow` and `av`).

The layout is that of `lerobot.datasets` 0.4: `meta/info.json`, `meta/tasks.parquet`, `meta/episodes/*/*.parquet`,
`data/*/*.parquet` and, unless the images are in the data files, `videos/FEATURE/*/*.mp4` with several episodes in each. Features are
called as in the LIBERO sets on the hub; their images are rotated by 180 degrees, an observation is from before the action in its row.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tasks.demonstrations.episodes import Episode, aligned
from tasks.demonstrations.hdf5 import DemonstrationError
from tasks.demonstrations.timing import ObservationTiming
from tasks.image_conventions import convert_images
from tasks.interface import ACTION_DIM, PROPRIO_DIM, ImageConvention

VERSION = "v3.0"
INFO = "meta/info.json"
CAMERA_FEATURES = {
    "agentview": ("observation.images.image", "observation.images.agentview", "image"),
    "robot0_eye_in_hand": (
        *("observation.images.image2", "observation.images.wrist_image", "observation.images.eye_in_hand"),
        "wrist_image",
    ),
}
"""Camera → what the sets on the hub call its images, the usual name first."""
STATES, ACTIONS = ("observation.state", "state"), ("action", "actions")
CONVENTION: ImageConvention = "rotated_180"
FOLDERS = ("meta", "data", "videos")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where an episode's frames of one camera are in a video."""

    file: Path
    start_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One episode, as `meta/episodes` has it."""

    index: int
    length: int
    instruction: str
    data_file: Path
    videos: dict[str, _Place]


def is_lerobot_dataset(path: Path) -> bool:
    """Whether a folder is one, of any version."""
    return (path / INFO).is_file()


class LeRobotDataset:
    """What a dataset says of itself.

    Args:
        folder: holds `meta`, `data` and perhaps `videos`.

    Raises:
        DemonstrationError: it is of another version, damaged, or no LIBERO dataset.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._info: dict[str, Any] = json.loads((folder / INFO).read_text())
            version, self._features = str(self._info["codebase_version"]), dict(self._info["features"])
            self.fps = float(self._info["fps"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DemonstrationError(f"{folder / INFO} is damaged or no LeRobot dataset's: {error!r}") from error
        if version != VERSION:
            raise DemonstrationError(
                f"{folder}: expected a LeRobot dataset of version {VERSION}, got {version}. LeRobot converts it: "
                "`python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 --repo-id=…`"
            )
        self.state, self.action = self._feature(STATES, PROPRIO_DIM), self._feature(ACTIONS, ACTION_DIM)

    @cached_property
    def lines(self) -> tuple[_Line, ...]:
        """All episodes in order."""
        try:
            return tuple(self._read_lines())
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise DemonstrationError(
                f"{self.folder}: its tables of episodes and tasks are damaged: {error!r}"
            ) from error

    @property
    def instructions(self) -> tuple[str, ...]:
        """Every instruction once, in order of appearance."""
        return tuple(dict.fromkeys(line.instruction for line in self.lines))

    def control_hz(self) -> float:
        """Rows per second by the timestamps in the data: median over the first episode [Hz].

        Raises:
            DemonstrationError: the timestamps make no sense.
        """
        times = _column(_read_table(self.lines[0].data_file), "timestamp", self.folder)[: self.lines[0].length]
        spacing = float(np.median(np.diff(times))) if len(times) > 1 else 1.0 / self.fps
        if not spacing > 0.0:
            raise DemonstrationError(f"{self.folder}: expected increasing timestamps, got a spacing of {spacing} s")
        return round(1.0 / spacing, 3)

    def camera(self, camera: str) -> str:
        """The feature that has a camera's images.

        Raises:
            DemonstrationError: there is none.
        """
        if camera not in CAMERA_FEATURES:
            raise DemonstrationError(f"unknown camera {camera!r}; LIBERO's are {', '.join(CAMERA_FEATURES)}")
        found = next((name for name in CAMERA_FEATURES[camera] if name in self._features), None)
        if found is None:
            images = [name for name, feature in self._features.items() if feature.get("dtype") in ("video", "image")]
            raise DemonstrationError(
                f"{self.folder}: no images of camera {camera} ({' or '.join(CAMERA_FEATURES[camera])}); its features with images "
                f"are {', '.join(images) or 'none'}. Choose with --cameras."
            )
        return found

    def is_video(self, feature: str) -> bool:
        """Whether a feature's images are in video files; else they are in the data files."""
        return bool(self._features[feature]["dtype"] == "video")

    def sha256(self) -> str:
        """The fingerprint of all files with data in them."""
        digest = hashlib.sha256()
        files = sorted(p for name in FOLDERS for p in (self.folder / name).rglob("*") if p.is_file())
        for file in files:
            with file.open("rb") as stream:
                contents = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"{file.relative_to(self.folder)} {contents}\n".encode())
        return digest.hexdigest()

    def _feature(self, names: Sequence[str], width: int) -> str:
        found = next((name for name in names if name in self._features), None)
        if found is None or list(self._features[found].get("shape", [])) != [width]:
            got = "nothing" if found is None else f"{self._features[found].get('shape')}"
            raise DemonstrationError(
                f"{self.folder}: expected a feature {' or '.join(names)} of {width} numbers, as the LIBERO sets on the hub have it, "
                f"got {got}; its features are {', '.join(self._features)}"
            )
        return found

    def _read_lines(self) -> list[_Line]:
        import pyarrow as pa

        tasks = _read_table(self.folder / "meta/tasks.parquet").to_pydict()
        texts: list[str] = next((values for name, values in tasks.items() if name != "task_index"), [])
        names = dict(zip(tasks["task_index"], texts, strict=True))
        tables = [_read_table(file) for file in sorted((self.folder / "meta/episodes").rglob("*.parquet"))]
        videos = [name for name in self._features if self.is_video(name)]
        keys = ["chunk_index", "file_index", "from_timestamp"]
        wanted = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
        wanted += [f"videos/{name}/{key}" for name in videos for key in keys]
        rows = pa.concat_tables([table.select(wanted) for table in tables]).to_pylist()
        lines = []
        for row in sorted(rows, key=lambda row: int(row["episode_index"])):
            told = [names.get(task, task) for task in row["tasks"]]
            if len(told) != 1:
                raise DemonstrationError(
                    f"{self.folder}: episode {row['episode_index']} has the tasks {told}; expected one for each episode"
                )
            lines.append(
                _Line(
                    index=int(row["episode_index"]),
                    length=int(row["length"]),
                    instruction=str(told[0]),
                    data_file=self._file("data_path", row["data/chunk_index"], row["data/file_index"]),
                    videos={
                        name: _Place(
                            file=self._file(
                                "video_path",
                                row[f"videos/{name}/chunk_index"],
                                row[f"videos/{name}/file_index"],
                                video_key=name,
                            ),
                            start_s=float(row[f"videos/{name}/from_timestamp"]),
                        )
                        for name in videos
                    },
                )
            )
        if not lines:
            raise DemonstrationError(f"{self.folder}: there are no episodes in it")
        return lines

    def _file(self, template: str, chunk: int, file: int, **more: str) -> Path:
        return self.folder / str(self._info[template]).format(chunk_index=chunk, file_index=file, **more)


class LeRobotReader:
    """The demonstrations of one task in a dataset, one at a time; a context manager.

    Args:
        folder: the dataset.
        instruction: the task's, in the dataset's words.
        cameras: in the order wanted.
        convention: of the images wanted.
        timing: whether a row's observation was taken before or after its action; None: before, as LeRobot records.

    Raises:
        DemonstrationError: the dataset is damaged, or a camera is missing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        instruction: str,
        cameras: Sequence[str],
        convention: ImageConvention,
        timing: ObservationTiming | None = None,
    ) -> None:
        self._dataset, self._convention = LeRobotDataset(folder), convention
        self.timing: ObservationTiming = timing or "before"
        self._features = [self._dataset.camera(camera) for camera in cameras]
        self._lines = {f"episode {line.index}": line for line in self._dataset.lines if line.instruction == instruction}
        self._table: tuple[Path, Any] | None = None
        self._videos: dict[str, _Video] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for video in self._videos.values():
            video.close()

    @property
    def demos(self) -> tuple[str, ...]:
        """Names of the demonstrations, in order."""
        return tuple(self._lines)

    def episode(self, demo: str) -> Episode:
        """One demonstration, aligned.

        Raises:
            DemonstrationError: something is missing, of another shape, or not finite; the message says where.
        """
        line = self._lines[demo]
        where = f"{self._dataset.folder} {demo}"
        rows = self._rows(line, where)
        proprio = self._vectors(rows, self._dataset.state, PROPRIO_DIM, where).astype(np.float32)
        actions = self._vectors(rows, self._dataset.action, ACTION_DIM, where)
        _check_gripper(actions[:, -1], where)
        views = [self._images(line, rows, feature, where) for feature in self._features]
        if len({view.shape for view in views}) > 1:
            raise DemonstrationError(
                f"{where}: expected images of one size, got {', '.join(str(view.shape[1:3]) for view in views)}"
            )
        images = convert_images(np.stack(views, axis=1), CONVENTION, self._convention)
        return aligned(where, images, proprio, actions, timing=self.timing, init_state_sha256="")

    def _rows(self, line: _Line, where: str) -> Any:
        """The episode's part of its data file, in order."""
        import pyarrow.compute as pc

        if self._table is None or self._table[0] != line.data_file:
            self._table = (line.data_file, _read_table(line.data_file))
        rows = self._table[1].filter(pc.equal(self._table[1]["episode_index"], line.index)).sort_by("frame_index")
        if rows.num_rows != line.length or rows["frame_index"].to_pylist() != list(range(line.length)):
            raise DemonstrationError(
                f"{where}: expected {line.length} rows in {line.data_file}, got {rows.num_rows} or others. Was it copied whole?"
            )
        return rows

    def _vectors(self, rows: Any, feature: str, width: int, where: str) -> NDArray[np.float64]:
        values = np.asarray(_column(rows, feature, self._dataset.folder).tolist(), dtype=np.float64)
        if values.shape != (rows.num_rows, width):
            raise DemonstrationError(f"{where}: expected {feature} ({rows.num_rows}, {width}), got {values.shape}")
        if not np.isfinite(values).all():
            step = np.argwhere(~np.isfinite(values))[0][0]
            raise DemonstrationError(f"{where}: expected finite {feature}, step {step} is not")
        return values

    def _images(self, line: _Line, rows: Any, feature: str, where: str) -> NDArray[np.uint8]:
        """(T, H, W, 3) as they are in the dataset."""
        if not self._dataset.is_video(feature):
            return np.stack([_picture(value, where) for value in rows[feature].to_pylist()])
        place = line.videos[feature]
        if feature not in self._videos or self._videos[feature].file != place.file:
            if feature in self._videos:
                self._videos.pop(feature).close()
            self._videos[feature] = _Video(place.file)
        return self._videos[feature].frames(place.start_s, line.length, self._dataset.fps, where)


class _Video:
    """One video file."""

    def __init__(self, file: Path) -> None:
        import av

        self._av, self.file = av, file
        try:
            self._container = av.open(str(file))
            self._stream = self._container.streams.video[0]
        except (av.FFmpegError, IndexError) as error:
            raise DemonstrationError(f"{file}: no readable video: {error}") from error
        self._stream.thread_type = "AUTO"

    def frames(self, start_s: float, count: int, fps: float, where: str) -> NDArray[np.uint8]:
        """(count, H, W, 3): the frames from `start_s` on.

        Raises:
            DemonstrationError: they are not all there.
        """
        found: list[NDArray[np.uint8]] = []
        base = self._stream.time_base
        assert base is not None
        try:
            self._container.seek(int(max(0.0, start_s) / float(base)), stream=self._stream)
            for frame in self._container.decode(self._stream):
                number = round((float(frame.time or 0.0) - start_s) * fps)
                if number < 0:
                    continue
                if number != len(found) or len(found) == count:
                    break
                found.append(np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8))
        except self._av.FFmpegError as error:
            raise DemonstrationError(f"{where}: {self.file} cannot be decoded: {error}") from error
        if len(found) != count:
            raise DemonstrationError(
                f"{where}: expected {count} frames from {start_s:.3f} s on at {fps:g} per second in {self.file}, found {len(found)}"
            )
        return np.stack(found)

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()


def _picture(value: Any, where: str) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        return np.asarray(Image.open(io.BytesIO(value["bytes"])).convert("RGB"))
    except (TypeError, KeyError, OSError, UnidentifiedImageError) as error:
        raise DemonstrationError(f"{where}: expected images as PNG or JPEG in the data file: {error!r}") from error


def _check_gripper(values: NDArray[np.float64], where: str) -> None:
    """LIBERO's gripper action is -1 (open) to 1 (close); converted sets may have 0 to 1, either way round."""
    if values.min() >= 0.0 and values.max() > 0.0 and np.unique(values).size > 1:
        raise DemonstrationError(
            f"{where}: expected gripper actions between -1 (open) and 1 (close), as LIBERO's controller takes them; these lie between "
            f"{values.min():g} and {values.max():g}. The set was converted for another policy: use one with the original actions."
        )


def _read_table(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise DemonstrationError(f"{file}: not a readable Parquet file: {error}") from error


def _column(table: Any, name: str, folder: Path) -> NDArray[Any]:
    if name not in table.column_names:
        raise DemonstrationError(f"{folder}: expected a column {name}, found {', '.join(table.column_names)}")
    values: NDArray[Any] = table[name].to_numpy()
    return values

"""LeRobot datasets: what was written is read back with pyarrow and av, and is what the HDF5 file held."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from tasks.demonstrations import EpisodeReader
from tasks.demonstrations.hdf5_writer import (
    RecordedDemonstration,
    TaskAttributes,
    join_demonstrations,
    write_demonstration,
)
from tasks.demonstrations.lerobot_writer import LeRobotSource, LeRobotWriteError, write_lerobot
from tasks.interface import CAMERAS
from tasks.suites import load_suite

SIZE = 32


def write_hdf5(folder: Path, task: int, lengths: list[int], size: int = SIZE) -> LeRobotSource:
    """Demonstrations with a bright square that wanders, so that every frame is another."""
    spec = load_suite("libero_spatial")[task]
    attributes = TaskAttributes(
        env_name="E", bddl_file=spec.bddl_file, instruction=spec.instruction_bddl, env_kwargs={}
    )
    parts = []
    for number, steps in enumerate(lengths):
        generator = np.random.default_rng([task, number])
        images = np.full((2, steps, size, size, 3), 40, dtype=np.uint8)
        for step in range(steps):
            at = 2 * step % (size - 8)
            images[:, step, at : at + 8, 4 + 8 * number : 12 + 8 * number] = 220
        joints = np.cumsum(generator.normal(size=(steps, 7)), axis=0)
        part = folder / f"part{task}{number}.hdf5"
        write_demonstration(
            part,
            attributes,
            RecordedDemonstration(
                agentview=images[0],
                eye_in_hand=255 - images[1],
                eef_position=generator.normal(size=(steps, 3)),
                eef_axis_angle=generator.normal(size=(steps, 3)),
                finger_positions=generator.normal(size=(steps, 2)),
                joint_positions=joints,
                actions=generator.uniform(-1, 1, size=(steps, 7)),
                executed_actions=np.zeros((steps, 7)),
                states=np.concatenate([np.arange(steps)[:, None], joints, joints], axis=1),
                model_xml="<mujoco/>",
                episode="{}",
            ),
        )
        parts.append(part)
    file = folder / f"task{task}.hdf5"
    join_demonstrations(parts, file)
    return LeRobotSource(file=file, instruction=spec.instruction_file_name)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[LeRobotSource]:
    folder = tmp_path_factory.mktemp("sources")
    return [write_hdf5(folder, 0, [9, 7]), write_hdf5(folder, 1, [5])]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, sources: list[LeRobotSource]) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "set"
    write_lerobot(sources, folder)
    return folder


def test_numbers_are_read_back_as_they_were(dataset: Path, sources: list[LeRobotSource]) -> None:
    tasks = pd.read_parquet(dataset / "meta/tasks.parquet")
    lines = pd.read_parquet(dataset / "meta/episodes/chunk-000/file-000.parquet")
    assert lines["length"].tolist() == [9, 7, 5]
    assert lines["dataset_to_index"].tolist() == [9, 16, 21]
    number = 0
    for index, source in enumerate(sources):
        rows = pd.read_parquet(dataset / f"data/chunk-000/file-{index:03d}.parquet")
        with EpisodeReader(source.file, cameras=CAMERAS, convention="rotated_180") as reader:
            for demo in reader.demos:
                episode = reader.episode(demo)
                mine = rows[rows["episode_index"] == number]
                np.testing.assert_array_equal(np.stack(mine["observation.state"]), episode.proprio)
                np.testing.assert_array_equal(np.stack(mine["action"]), episode.actions.astype(np.float32))
                np.testing.assert_array_equal(mine["frame_index"], np.arange(len(mine)))
                assert tasks.index[mine["task_index"].iloc[0]] == source.instruction
                assert list(lines["tasks"][number]) == [source.instruction]
                number += 1


def test_frames_are_where_the_episodes_say_and_rotated(dataset: Path, sources: list[LeRobotSource]) -> None:
    lines = pd.read_parquet(dataset / "meta/episodes/chunk-000/file-000.parquet")
    with EpisodeReader(sources[0].file, cameras=CAMERAS, convention="rotated_180") as reader:
        episode = reader.episode("demo_1")
    for column, feature in enumerate(("observation.images.image", "observation.images.image2")):
        start = lines[f"videos/{feature}/from_timestamp"][1]
        with av.open(str(dataset / f"videos/{feature}/chunk-000/file-000.mp4")) as video:
            frames = [(float(f.time or 0.0), f.to_ndarray(format="rgb24")) for f in video.decode(video=0)]
        assert len(frames) == 16
        for step, image in enumerate(episode.images[:, column]):
            time_s, frame = frames[9 + step]
            assert time_s == pytest.approx(start + step / 20, abs=1e-4)
            assert np.abs(frame.astype(int) - image).mean() < 4
    upside_down = episode.images[0, 1, ::-1].astype(int)
    assert np.abs(frames[9][1] - upside_down).mean() > 10  # it would be told apart


def test_statistics_are_exact(dataset: Path, sources: list[LeRobotSource]) -> None:
    stats = json.loads((dataset / "meta/stats.json").read_text())
    episodes = []
    for source in sources:
        with EpisodeReader(source.file, cameras=CAMERAS, convention="rotated_180") as reader:
            episodes += [reader.episode(demo) for demo in reader.demos]
    actions = np.concatenate([e.actions.astype(np.float32) for e in episodes]).astype(np.float64)
    np.testing.assert_allclose(stats["action"]["q99"], np.quantile(actions, 0.99, axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(axis=0), rtol=1e-12)
    assert stats["action"]["count"] == [21]
    pixels = np.concatenate([e.images[:, 1].reshape(-1, 3) for e in episodes]) / 255.0
    found = stats["observation.images.image2"]
    np.testing.assert_allclose(np.ravel(found["mean"]), pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.ravel(found["std"]), pixels.std(axis=0), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(found["q10"]), np.quantile(pixels, 0.1, axis=0, method="inverted_cdf"))
    np.testing.assert_allclose(np.ravel(found["max"]), pixels.max(axis=0))


def test_the_description_names_what_there_is(dataset: Path) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 20, 3, 21)
    assert info["features"]["observation.images.image"]["shape"] == [SIZE, SIZE, 3]
    assert (info["features"]["observation.state"]["shape"], info["features"]["action"]["shape"]) == ([8], [7])


def test_wrong_input_leaves_nothing_behind(tmp_path: Path, sources: list[LeRobotSource]) -> None:
    with pytest.raises(LeRobotWriteError, match="expected 1 to 1000 files of demonstrations, got 0"):
        write_lerobot([], tmp_path / "set")
    with pytest.raises(LeRobotWriteError, match="expected images of one even size .* 32×32 so far, got 34×34"):
        write_lerobot([sources[0], write_hdf5(tmp_path, 2, [4], size=34)], tmp_path / "set")
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="is there already"):
        write_lerobot(sources, tmp_path / "there")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["there"]

"""LeRobot datasets read back: what was written, images in either place, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.demonstrations import DemonstrationError, EpisodeReader, select_demonstrations
from tasks.demonstrations.lerobot import LeRobotDataset, LeRobotReader
from tasks.demonstrations.lerobot_writer import LeRobotSource, write_lerobot
from tasks.demonstrations.reading import fingerprint, open_source
from tasks.interface import CAMERAS
from tasks.suites import load_suite
from tests.tasks.test_lerobot_writer import SIZE, write_hdf5

DATA = "data/chunk-000/file-000.parquet"
FEATURES = ("observation.images.image", "observation.images.image2")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[LeRobotSource]:
    folder = tmp_path_factory.mktemp("sources")
    return [write_hdf5(folder, 0, [9, 7]), write_hdf5(folder, 1, [5])]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, sources: list[LeRobotSource]) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "set"
    write_lerobot(sources, folder)
    return folder


@pytest.fixture
def dataset(tmp_path: Path, written: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "set"))


def change_info(dataset: Path, **values: Any) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    (dataset / "meta/info.json").write_text(json.dumps(info | values))


def change_rows(dataset: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_parquet(dataset / DATA)).to_parquet(dataset / DATA, index=False)


def with_images_in_the_data_files(dataset: Path, sources: list[LeRobotSource]) -> None:
    """As some public sets have them."""
    info = json.loads((dataset / "meta/info.json").read_text())
    for index, source in enumerate(sources):
        with EpisodeReader(source.file, cameras=CAMERAS, convention="rotated_180") as reader:
            images = np.concatenate([reader.episode(demo).images for demo in reader.demos])
        file = dataset / f"data/chunk-000/file-{index:03d}.parquet"
        rows = pd.read_parquet(file)
        for column, feature in enumerate(FEATURES):
            rows[feature] = [{"bytes": png(image), "path": "x.png"} for image in images[:, column]]
            info["features"][feature]["dtype"] = "image"
        rows.to_parquet(file, index=False)
    (dataset / "meta/info.json").write_text(json.dumps(info))
    shutil.rmtree(dataset / "videos")


def png(image: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG")
    return out.getvalue()


@pytest.mark.parametrize("images", ["videos", "data"])
def test_what_was_written_is_read_back(dataset: Path, sources: list[LeRobotSource], images: str) -> None:
    if images == "data":
        with_images_in_the_data_files(dataset, sources)
    chosen = select_demonstrations([dataset], [], "file_name")
    assert [source.instruction for source in chosen] == [source.instruction for source in sources]
    assert [source.task for source in chosen] == [task.name for task in load_suite("libero_spatial")[:2]]
    assert {source.suite for source in chosen} == {"libero_spatial"}
    for ours, theirs in zip(chosen, sources, strict=True):
        with (
            open_source(ours, cameras=CAMERAS, convention="true_view", timing=None) as mine,
            EpisodeReader(theirs.file, cameras=CAMERAS, convention="true_view") as original,
        ):
            assert mine.timing == "before"
            assert len(mine.demos) == len(original.demos)
            for a, b in zip(map(mine.episode, mine.demos), map(original.episode, original.demos), strict=True):
                np.testing.assert_array_equal(a.proprio, b.proprio)
                np.testing.assert_array_equal(a.actions, b.actions.astype(np.float32))
                assert a.images.shape == b.images.shape
                if images == "data":
                    np.testing.assert_array_equal(a.images, b.images)
                else:
                    apart = np.abs(a.images.astype(int) - b.images).mean(axis=(1, 2, 3, 4))
                    assert apart.max() < 4  # H.264; the frame before would be 20 apart


def test_one_camera_the_later_episode_first(written: Path, sources: list[LeRobotSource]) -> None:
    wrist = ("robot0_eye_in_hand",)
    with (
        LeRobotReader(written, instruction=sources[0].instruction, cameras=wrist, convention="rotated_180") as reader,
        EpisodeReader(sources[0].file, cameras=wrist, convention="rotated_180") as original,
    ):
        for ours, theirs in (("episode 1", "demo_1"), ("episode 0", "demo_0")):
            apart = np.abs(reader.episode(ours).images.astype(int) - original.episode(theirs).images)
            assert apart.mean(axis=(1, 2, 3, 4)).max() < 4


def test_observations_from_after_the_action_are_moved(written: Path, sources: list[LeRobotSource]) -> None:
    given = {"instruction": sources[1].instruction, "cameras": CAMERAS, "convention": "raw"}
    with (
        LeRobotReader(written, **given) as before,  # type: ignore[arg-type]
        LeRobotReader(written, **given, timing="after") as after,  # type: ignore[arg-type]
    ):
        a, b = before.episode("episode 2"), after.episode("episode 2")
    np.testing.assert_array_equal(b.proprio, a.proprio[:-1])
    np.testing.assert_array_equal(b.actions, a.actions[1:])


def test_the_fingerprint_is_of_every_file_with_data(dataset: Path, written: Path) -> None:
    (dataset / "README.md").write_text("of no importance")
    assert fingerprint(dataset) == fingerprint(written)
    change_rows(dataset, lambda rows: rows.assign(action=rows["action"] * 0.5))
    assert fingerprint(dataset) != fingerprint(written)


def test_the_rate_is_by_the_timestamps(dataset: Path) -> None:
    assert LeRobotDataset(dataset).control_hz() == 20.0
    change_rows(dataset, lambda rows: rows.assign(timestamp=rows["timestamp"] * 2))
    assert LeRobotDataset(dataset).control_hz() == 10.0


def read_all(dataset: Path, cameras: tuple[str, ...] = CAMERAS) -> None:
    for source in select_demonstrations([dataset], [], "file_name"):
        with open_source(source, cameras=cameras, convention="raw", timing=None) as reader:
            for demo in reader.demos:
                reader.episode(demo)


def drop_state(dataset: Path) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    info["features"]["observation.state"]["shape"] = [7]
    (dataset / "meta/info.json").write_text(json.dumps(info))


def cut(dataset: Path, file: str) -> None:
    contents = (dataset / file).read_bytes()
    (dataset / file).write_bytes(contents[: len(contents) // 2])


def gripper_from_zero_to_one(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(action=[np.append(a[:6], abs(a[6])) for a in rows["action"]])


def with_a_nan(rows: pd.DataFrame) -> pd.DataFrame:
    states = [state.copy() for state in rows["observation.state"]]
    states[3][2] = np.nan
    return rows.assign(**{"observation.state": states})


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "version": (
        lambda d: change_info(d, codebase_version="v2.1"),
        r"of version v3\.0, got v2\.1\. LeRobot converts it",
    ),
    "info": (lambda d: cut(d, "meta/info.json"), r"info\.json is damaged or no LeRobot dataset's"),
    "state": (drop_state, r"observation\.state or state of 8 numbers, .*, got \[7\]"),
    "tasks": (lambda d: cut(d, "meta/tasks.parquet"), r"tasks\.parquet: not a readable Parquet file"),
    "rows": (lambda d: change_rows(d, lambda rows: rows.drop(index=4)), r"episode 0: expected 9 rows .*got 8"),
    "nan": (lambda d: change_rows(d, with_a_nan), r"episode 0: expected finite observation\.state, step 3 is not"),
    "gripper": (
        lambda d: change_rows(d, gripper_from_zero_to_one),
        r"episode 0: expected gripper actions between -1 \(open\) and 1 \(close\)",
    ),
    "video": (lambda d: cut(d, f"videos/{FEATURES[1]}/chunk-000/file-000.mp4"), r"episode 0|no readable video"),
    "no video": (lambda d: (d / f"videos/{FEATURES[0]}/chunk-000/file-000.mp4").unlink(), "no readable video"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(dataset: Path, damage: str) -> None:
    inflict, message = DAMAGES[damage]
    inflict(dataset)
    with pytest.raises(DemonstrationError, match=message):
        read_all(dataset)


def test_a_camera_that_is_missing(dataset: Path) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    del info["features"][FEATURES[1]]
    (dataset / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DemonstrationError, match=f"no images of camera robot0_eye_in_hand .* are {FEATURES[0]}"):
        read_all(dataset)
    read_all(dataset, cameras=("agentview",))


def test_beside_the_files_it_was_made_of_it_is_ambiguous(dataset: Path, sources: list[LeRobotSource]) -> None:
    shutil.copy(sources[0].file, dataset.parent / "a.hdf5")
    with pytest.raises(DemonstrationError, match=r"HDF5 files \(a\.hdf5, …\) and LeRobot datasets \(set, …\)"):
        select_demonstrations([dataset.parent], [], "file_name")
    assert SIZE == 32

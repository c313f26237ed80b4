"""Reading demonstrations to learn from: alignment, conventions, and what is wrong with a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tasks.demonstrations import DemonstrationError, Episode, EpisodeReader
from tasks.demonstrations.layouts import axis_angle
from tasks.demonstrations.timing import observation_timing
from tasks.image_conventions import convert_images
from tasks.interface import CAMERAS, state_sha256
from tests.lift import LIFT, write_libero


def read(file: Path, demo: str = "demo_0", **options: object) -> Episode:
    given = {"cameras": CAMERAS, "convention": "rotated_180"} | options
    with EpisodeReader(file, **given) as reader:  # type: ignore[arg-type]
        return reader.episode(demo)


def test_a_real_robomimic_file() -> None:
    with EpisodeReader(LIFT, cameras=CAMERAS, convention="true_view") as reader:
        assert reader.demos == ("demo_0", "demo_1", "demo_2")
        assert reader.timing == "before"
        episode = reader.episode("demo_0")
    with h5py.File(LIFT) as file:
        recorded = file["data/demo_0"]
        np.testing.assert_array_equal(episode.images[:, 0], recorded["obs/agentview_image"])
        np.testing.assert_array_equal(episode.images[:, 1], recorded["obs/robot0_eye_in_hand_image"])
        np.testing.assert_array_equal(episode.actions, recorded["actions"])
        np.testing.assert_allclose(episode.proprio[:, :3], recorded["obs/robot0_eef_pos"], rtol=1e-6)
        assert episode.init_state_sha256 == state_sha256(recorded["states"][0])
    assert episode.images.shape == (59, 2, 84, 84, 3)
    assert (episode.proprio.dtype, episode.actions.dtype) == (np.float32, np.float64)


def test_the_red_cube_lies_where_a_person_would_see_it() -> None:
    """It is below and left of the middle in the true view, hence below and right in the policies' mirrored one."""

    def cube(episode: Episode) -> tuple[float, float]:
        image = episode.images[0, 0].astype(float)
        rows, columns = np.nonzero((image[..., 0] > 100) & (image[..., 1] < 70))
        return rows.mean() / 84, columns.mean() / 84

    (row, column), (mirrored_row, mirrored_column) = cube(read(LIFT, convention="true_view")), cube(read(LIFT))
    assert row > 0.5
    assert mirrored_row == pytest.approx(row)
    assert mirrored_column == pytest.approx(1 - column - 1 / 84)
    assert cube(read(LIFT, convention="raw"))[0] < 0.5


@pytest.mark.parametrize("after", [False, True])
def test_the_same_demonstrations_in_liberos_layout_come_out_the_same(tmp_path: Path, after: bool) -> None:
    file = write_libero(tmp_path / "a.hdf5", after=after)
    with EpisodeReader(file, cameras=CAMERAS, convention="rotated_180") as reader:
        assert reader.timing == ("after" if after else "before")
    ours, reference = read(file, "demo_1"), read(LIFT, "demo_1")
    first, last = (1, len(reference.actions) - 1) if after else (0, len(reference.actions))
    np.testing.assert_array_equal(ours.images, reference.images[first:last])
    np.testing.assert_array_equal(ours.proprio, reference.proprio[first:last])
    np.testing.assert_array_equal(ours.actions, reference.actions[first:last])


def test_the_timing_may_be_said_and_must_be_where_it_cannot_be_told(tmp_path: Path) -> None:
    file = write_libero(tmp_path / "a.hdf5")
    with h5py.File(file, "a") as out:
        for demo in out["data"].values():
            del demo["states"]
    with pytest.raises(
        DemonstrationError, match="cannot tell whether observations were taken before or after .*--observation-timing"
    ):
        read(file)
    episode = read(file, timing="before")
    assert (len(episode.actions), episode.init_state_sha256) == (59, "")
    assert len(read(file, timing="after").actions) == 58


def test_an_arm_that_does_not_move_says_nothing() -> None:
    assert observation_timing([np.zeros((5, 7))], [np.zeros((5, 20))]) is None
    assert observation_timing([], []) is None


def test_quaternions_become_axis_angles_as_in_robosuite() -> None:
    robosuite = pytest.importorskip("robosuite.utils.transform_utils")
    quaternions = np.random.default_rng(0).normal(size=(50, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    quaternions[0] = [0, 0, 0, 1]
    quaternions[1] = [0, 0, 0, -1]
    expected = np.array([robosuite.quat2axisangle(q.copy()) for q in quaternions])
    np.testing.assert_allclose(axis_angle(quaternions), expected, atol=1e-12)


def test_conventions_are_their_own_inverses() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(convert_images(images, "raw", "true_view"), images[:, :, ::-1])
    np.testing.assert_array_equal(convert_images(images, "raw", "rotated_180"), images[:, :, ::-1, ::-1])
    for given in ("raw", "true_view", "rotated_180"):
        for wanted in ("raw", "true_view", "rotated_180"):
            back = convert_images(convert_images(images, given, wanted), wanted, given)  # type: ignore[arg-type]
            np.testing.assert_array_equal(back, images)


def drop(name: str) -> Callable[[h5py.Group], None]:
    def change(demo: h5py.Group) -> None:
        del demo[name]

    return change


def put(name: str, row: int, value: float) -> Callable[[h5py.Group], None]:
    def change(demo: h5py.Group) -> None:
        demo[name][row, 0] = value

    return change


def replace(name: str, values: np.ndarray) -> Callable[[h5py.Group], None]:
    def change(demo: h5py.Group) -> None:
        del demo[name]
        demo[name] = values

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("obs"), "demo_0: expected a group `obs` with images, found actions, states"),
        (
            drop("obs/eye_in_hand_rgb"),
            r"no images of camera robot0_eye_in_hand \(obs/eye_in_hand_rgb\); the file has agentview",
        ),
        (drop("obs/ee_pos"), "expected LIBERO's observations .* or robomimic's .*, found agentview_rgb"),
        (put("actions", 4, np.nan), "demo_0: expected finite actions, got nan at step 4, dimension 0"),
        (put("obs/ee_pos", 7, np.inf), "demo_0: expected finite obs/ee_pos, step 7 is not"),
        (replace("actions", np.zeros((59, 6))), r"demo_0: expected actions \(T, 7\), got \(59, 6\)"),
        (replace("obs/ee_ori", np.zeros((59, 5))), r"demo_0: expected obs/ee_ori \(59, 3\), got \(59, 5\)"),
        (
            replace("obs/agentview_rgb", np.zeros((58, 84, 84, 3), dtype=np.uint8)),
            r"demo_0: expected obs/agentview_rgb uint8 \(59, H, W, 3\), got uint8 \(58, 84, 84, 3\)",
        ),
        (
            replace("obs/agentview_rgb", np.zeros((59, 64, 64, 3), dtype=np.uint8)),
            r"demo_0: expected images of one size, got agentview \(64, 64\), robot0_eye_in_hand \(84, 84\)",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: Callable[[h5py.Group], None], message: str) -> None:
    file = write_libero(tmp_path / "a.hdf5")
    with h5py.File(file, "a") as out:
        change(out["data/demo_0"])
    with pytest.raises(DemonstrationError, match=message):
        read(file, timing="before")

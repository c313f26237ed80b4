"""Decoded sets: filled by several, interrupted, damaged, and read as the demonstrations they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tasks.demonstrations import DemonstrationError, Episode, EpisodeReader, select_demonstrations
from tasks.demonstrations.decoded_set import DecodedSetReader, EpisodeRange, read_decoded_set
from tasks.demonstrations.planned_set import PlannedEpisode, PlannedSet
from tasks.interface import CAMERAS
from tests.lift import LIFT

SOUP = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
TASKS = (SOUP, SOUP, "wave")


@pytest.fixture(scope="module")
def lift() -> list[Episode]:
    with EpisodeReader(LIFT, cameras=CAMERAS, convention="rotated_180") as reader:
        return [reader.episode(demo) for demo in reader.demos]


def plan(place: Path, lift: list[Episode], ends_in: str = "state", image_every: int = 1) -> PlannedSet:
    """The three Lift demonstrations, as if they were two of one task and one of another."""
    ends = np.cumsum([len(episode.actions) for episode in lift]).tolist()
    images = [len(episode.actions[::image_every]) for episode in lift]
    ranges = [
        EpisodeRange(
            name=f"demo {number}",
            task=task,
            suite="libero_object" if task == SOUP else "",
            instruction=task.replace("_", " "),
            first=end - len(episode.actions),
            end=end,
            first_image=sum(images[:number]),
            image_every=image_every,
            init_state_sha256="",
        )
        for number, (task, episode, end) in enumerate(zip(TASKS, lift, ends, strict=True))
    ]
    named = [(place_, f"{ends_in} {number}") for number, place_ in enumerate(ranges)]
    return PlannedSet(place, named, cameras=CAMERAS, size_px=84, convention="rotated_180")


def write(planned: PlannedEpisode, episode: Episode) -> None:
    planned.write(episode.images, episode.proprio, episode.actions, episode.init_state_sha256)


def filled(place: Path, lift: list[Episode]) -> Path:
    planned = plan(place, lift)
    planned.begin()
    for number in (2, 0, 1):
        write(planned.episodes[number], lift[number])
    planned.finish()
    return place


def test_what_is_drawn_in_any_order_lies_in_order(tmp_path: Path, lift: list[Episode]) -> None:
    whole = read_decoded_set(filled(tmp_path / "set", lift))
    np.testing.assert_array_equal(whole.images, np.concatenate([episode.images for episode in lift]))
    np.testing.assert_array_equal(whole.proprio, np.concatenate([episode.proprio for episode in lift]))
    np.testing.assert_array_equal(whole.actions, np.concatenate([episode.actions for episode in lift]))
    assert [e.init_state_sha256 for e in whole.episodes] == [e.init_state_sha256 for e in lift]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert plan(tmp_path / "set", lift).is_whole()


def test_every_third_step_may_have_images(tmp_path: Path, lift: list[Episode]) -> None:
    planned = plan(tmp_path / "set", lift, image_every=3)
    planned.begin()
    for number in (2, 0, 1):
        episode = lift[number]
        planned.episodes[number].write(episode.images[::3], episode.proprio, episode.actions, episode.init_state_sha256)
    assert not plan(tmp_path / "set", lift, image_every=3).begin()  # all is there, after an interruption too
    with pytest.raises(ValueError, match="demo 0: planned with 59 steps and 20 images, got 59 and 59"):
        write(planned.episodes[0], lift[0])
    planned.finish()
    thin = read_decoded_set(tmp_path / "set")
    np.testing.assert_array_equal(thin.images, np.concatenate([episode.images[::3] for episode in lift]))
    np.testing.assert_array_equal(thin.actions, np.concatenate([episode.actions for episode in lift]))
    reader = DecodedSetReader(
        tmp_path / "set", task=SOUP, suite="libero_object", cameras=CAMERAS, convention="rotated_180"
    )
    with pytest.raises(DemonstrationError, match="has images of every 3th step only, so it cannot be copied"):
        reader.episode("demo 0")


def test_the_fingerprint_is_of_the_contents(tmp_path: Path, lift: list[Episode]) -> None:
    one = read_decoded_set(filled(tmp_path / "one", lift))
    other = plan(tmp_path / "other", lift)
    other.begin()
    for number in (0, 1, 2):
        write(other.episodes[number], lift[number])
    lift[1].images[3, 0, 5, 5] ^= 1
    write(other.episodes[1], lift[1])
    other.finish()
    lift[1].images[3, 0, 5, 5] ^= 1
    assert read_decoded_set(filled(tmp_path / "again", lift)).sha256 == one.sha256
    assert read_decoded_set(tmp_path / "other").sha256 != one.sha256


def test_an_interrupted_one_goes_on_and_mistrusts_what_is_damaged(tmp_path: Path, lift: list[Episode]) -> None:
    first = plan(tmp_path / "set", lift)
    assert len(first.begin()) == 3
    write(first.episodes[0], lift[0])
    write(first.episodes[1], lift[1])
    with pytest.raises(DemonstrationError, match="1 demonstrations are not drawn yet"):
        first.finish()
    assert not (tmp_path / "set").exists()
    second = plan(tmp_path / "set", lift)
    assert [episode.place.name for episode in second.begin()] == ["demo 2"]
    with (tmp_path / ".set.partial" / "images.bin").open(
        "r+b"
    ) as images:  # the machine went down before it was on disk
        images.seek(lift[0].images.nbytes - 10)
        images.write(bytes(10))
    assert [episode.place.name for episode in second.begin()] == ["demo 0", "demo 2"]
    (tmp_path / ".set.partial" / "finished" / f"{second.episodes[1].place.first}.npz").write_bytes(b"PK")
    assert len(second.begin()) == 3
    for planned, episode in zip(second.episodes, lift, strict=True):
        write(planned, episode)
    assert second.begin() == []
    second.finish()
    np.testing.assert_array_equal(read_decoded_set(tmp_path / "set").images[: len(lift[0].images)], lift[0].images)


def test_what_was_interrupted_at_the_very_end_or_beginning_goes_on(
    tmp_path: Path, lift: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(tmp_path / "set", lift)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(OSError, match="No space"):
        planned.begin()
    monkeypatch.undo()
    assert len(planned.begin()) == 3  # the plan was not there: nothing was begun
    for episode, drawn in zip(planned.episodes, lift, strict=True):
        write(episode, drawn)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        planned.finish()
    monkeypatch.undo()
    with pytest.raises(DemonstrationError, match="there is none"):
        select_demonstrations([tmp_path], [], "file_name")  # half made is not there
    assert planned.begin() == []
    planned.finish()
    assert plan(tmp_path / "set", lift).is_whole()


def test_another_plan_touches_nothing(tmp_path: Path, lift: list[Episode]) -> None:
    first = plan(tmp_path / "set", lift)
    first.begin()
    write(first.episodes[0], lift[0])
    with pytest.raises(DemonstrationError, match=r"\.set\.partial holds a half-drawn set of other demonstrations"):
        plan(tmp_path / "set", lift, "another state").begin()
    assert len(first.begin()) == 2
    write(first.episodes[1], lift[1])
    write(first.episodes[2], lift[2])
    first.finish()
    with pytest.raises(
        DemonstrationError, match="set is there already, and it is not the set of 3 demonstrations of 84 px"
    ):
        plan(tmp_path / "set", lift, "another state").is_whole()


def test_a_demonstration_of_another_length_is_refused(tmp_path: Path, lift: list[Episode]) -> None:
    planned = plan(tmp_path / "set", lift)
    planned.begin()
    with pytest.raises(ValueError, match="demo 0: planned with 59 steps and 59 images, got 58 and 58"):
        write(planned.episodes[0], lift[1])
    assert len(planned.begin()) == 3


def test_a_disk_without_room_is_said_before_anything_is_drawn(
    tmp_path: Path, lift: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**20, 2**20, 0))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"will take 0\.0 GiB, the disk has 0\.0 GiB free.*--size"):
        plan(tmp_path / "set", lift).begin()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_set_is_refused(tmp_path: Path, lift: list[Episode]) -> None:
    folder = filled(tmp_path / "set", lift)
    with (folder / "images.bin").open("r+b") as images:
        images.truncate(1000)
    with pytest.raises(DemonstrationError, match=r"expected 7366464 bytes of images .*, got 1000 bytes.*make it again"):
        read_decoded_set(folder)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"format": "decoded demonstrations 9"}))
    with pytest.raises(
        DemonstrationError, match="expected the format 'decoded demonstrations 2', got 'decoded demonstrations 9'"
    ):
        read_decoded_set(folder)
    (folder / "vectors.npz").write_bytes(b"")
    with pytest.raises(DemonstrationError, match="not readable as decoded demonstrations"):
        read_decoded_set(folder)


def test_its_reader_gives_one_task_in_the_cameras_and_convention_wanted(tmp_path: Path, lift: list[Episode]) -> None:
    folder = filled(tmp_path / "set", lift)
    wrist = ("robot0_eye_in_hand",)
    with (
        DecodedSetReader(folder, task=SOUP, suite="libero_object", cameras=wrist, convention="true_view") as reader,
        EpisodeReader(LIFT, cameras=wrist, convention="true_view") as original,
    ):
        assert reader.demos == ("demo 0", "demo 1")
        np.testing.assert_array_equal(reader.episode("demo 1").images, original.episode("demo_1").images)
    with pytest.raises(DemonstrationError, match="no images of camera sideview; it has agentview, robot0_eye_in_hand"):
        DecodedSetReader(folder, task=SOUP, suite="libero_object", cameras=("sideview",), convention="raw")


def test_its_tasks_are_chosen_as_files_are(tmp_path: Path, lift: list[Episode]) -> None:
    folder = filled(tmp_path / "set", lift)
    chosen = select_demonstrations([folder], [], "file_name")
    assert [(s.task, s.suite, s.instruction) for s in chosen] == [
        (SOUP, "libero_object", "pick up the alphabet soup and place it in the basket"),
        ("wave", "", "wave"),
    ]
    assert [s.task for s in select_demonstrations([tmp_path], ["pick_and_place"], "recorded")] == [SOUP]
    shutil.copy(LIFT, tmp_path / "lift.hdf5")
    with pytest.raises(DemonstrationError, match=r"holds HDF5 files \(lift\.hdf5, …\) and decoded sets \(set, …\)"):
        select_demonstrations([tmp_path], [], "file_name")

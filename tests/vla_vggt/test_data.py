"""Cache, windows, order and batches, on real demonstrations."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.demonstrations import DemonstrationError, DemonstrationSource, EpisodeReader
from tasks.demonstrations.decoded_set import DemonstrationSet, EpisodeRange, read_decoded_set
from tasks.interface import CAMERAS
from tests.lift import LIFT, write_libero
from vla_vggt.data import cache as cache_module
from vla_vggt.data.batches import Batches
from vla_vggt.data.cache import load_demonstrations
from vla_vggt.data.windows import SampleOrder, make_windows, split_episodes

CPU = torch.device("cpu")
LENGTHS = [59, 58, 57]


def source(file: Path, task: str = "lift", instruction: str = "lift the cube") -> DemonstrationSource:
    return DemonstrationSource(file=file, task=task, suite="", instruction=instruction)


def load(
    folder: Path, *sources: DemonstrationSource, say: Callable[[str], None] = print, **options: object
) -> DemonstrationSet:
    given = {"cameras": CAMERAS, "convention": "rotated_180", "timing": None} | options
    return load_demonstrations(sources or [source(LIFT)], folder=folder, progress=say, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> DemonstrationSet:
    return load(tmp_path_factory.mktemp("cache"))


def test_the_set_is_the_file(demonstrations: DemonstrationSet) -> None:
    assert [e.end - e.first for e in demonstrations.episodes] == LENGTHS
    assert demonstrations.timings == {"lift.hdf5": "before"}
    with EpisodeReader(LIFT, cameras=CAMERAS, convention="rotated_180") as reader:
        for place, demo in zip(demonstrations.episodes, reader.demos, strict=True):
            episode = reader.episode(demo)
            np.testing.assert_array_equal(demonstrations.images[place.first : place.end], episode.images)
            np.testing.assert_array_equal(demonstrations.proprio[place.first : place.end], episode.proprio)
            np.testing.assert_array_equal(demonstrations.actions[place.first : place.end], episode.actions)
            assert place.init_state_sha256 == episode.init_state_sha256


def test_it_is_decoded_once_and_never_stale(tmp_path: Path) -> None:
    file = tmp_path / "a.hdf5"
    shutil.copy(LIFT, file)
    said: list[str] = []
    first = load(tmp_path / "cache", source(file), say=said.append)
    again = load(tmp_path / "cache", source(file), say=said.append)
    assert len(said) == 1
    assert first.sha256 == again.sha256
    np.testing.assert_array_equal(first.images, again.images)
    others = [
        load(tmp_path / "cache", source(file), say=said.append, cameras=("agentview",)),
        load(tmp_path / "cache", source(file), say=said.append, convention="raw"),
        load(tmp_path / "cache", source(file), say=said.append, timing="after"),
        load(tmp_path / "cache", source(file, instruction="lift it"), say=said.append),
        load(tmp_path / "cache", source(write_libero(file)), say=said.append),
    ]
    assert len({first.sha256, *(other.sha256 for other in others)}) == 6
    assert len(said) == 6


def test_a_failure_midway_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module.np, "savez", full)
    with pytest.raises(
        OSError, match="cannot write the cache of demonstrations in .*No space left on device.*VLA_VGGT_CACHE"
    ):
        load(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.undo()
    assert load(tmp_path / "cache").images.shape == (174, 2, 84, 84, 3)


def test_tasks_of_a_decoded_set_are_mapped_where_they_lie(tmp_path: Path) -> None:
    """A cache entry is a decoded set too, so one of two tasks is made here and read as such."""
    both = load(tmp_path, source(LIFT), source(write_libero(tmp_path / "b.hdf5"), "other", "drop the cube"))
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    said: list[str] = []
    again = load(tmp_path / "cache", source(folder, "other", "drop it"), say=said.append)
    assert Path(again.images.filename) == folder / "images.bin"  # type: ignore[attr-defined]
    assert not said
    assert not (tmp_path / "cache").exists()
    assert [(e.first, e.task, e.instruction) for e in again.episodes] == [
        (174, "other", "drop it"),
        (233, "other", "drop it"),
        (291, "other", "drop it"),
    ]
    assert again.sha256 != both.sha256
    batch = Batches(
        again, make_windows(again, list(again.episodes)), chunk_steps=2, device=CPU, data_on_device=False
    ).get(np.array([1]))
    np.testing.assert_array_equal(batch.images[0].numpy(), both.images[175])


def test_other_cameras_of_a_decoded_set_and_more_beside_it_are_copied(tmp_path: Path) -> None:
    whole = load(tmp_path, source(LIFT))
    (folder,) = tmp_path.iterdir()
    one = load(tmp_path / "cache", source(folder), cameras=("robot0_eye_in_hand",), convention="raw")
    np.testing.assert_array_equal(one.images[:, 0], whole.images[:, 1, ::-1, ::-1])
    more = load(tmp_path / "cache", source(folder), source(write_libero(tmp_path / "b.hdf5"), "other", "drop it"))
    np.testing.assert_array_equal(more.images[:174], whole.images)
    assert [e.init_state_sha256 for e in more.episodes[:3]] == [e.init_state_sha256 for e in whole.episodes]


def test_two_sets_with_the_same_names_are_split_as_one(tmp_path: Path) -> None:
    """Demonstrations of the same init states, one set with noise: both call them the same."""
    load(tmp_path / "a", source(LIFT))
    load(tmp_path / "b", source(write_libero(tmp_path / "b.hdf5")))
    folders = [next(path for path in (tmp_path / name).iterdir() if path.is_dir()) for name in ("a", "b")]
    for folder in folders:
        meta = json.loads((folder / "meta.json").read_text())
        for number, episode in enumerate(meta["episodes"]):
            episode["name"] = f"libero_object/00/s{number}/r0"
        (folder / "meta.json").write_text(json.dumps(meta))
    both = load(tmp_path / "cache", *map(source, folders))
    assert len({episode.name for episode in both.episodes}) == 6
    training, held_out = split_episodes(both.episodes, 0.34, seed=0)
    assert (len(training), len(held_out)) == (4, 2)
    assert not (tmp_path / "cache").exists()  # mapped where they lie
    parts = [read_decoded_set(folder) for folder in folders]
    batches = Batches(both, make_windows(both, training), chunk_steps=2, device=CPU, data_on_device=False)
    batch = batches.get(np.arange(len(make_windows(both, training)))[::-7].copy())
    steps = np.concatenate([np.arange(e.first, e.end) for e in training])[::-7]
    images = np.concatenate([part.images for part in parts])
    np.testing.assert_array_equal(batch.images.numpy(), images[steps])
    np.testing.assert_array_equal(batch.proprio.numpy(), np.concatenate([part.proprio for part in parts])[steps])
    assert {part for part in (steps < 174)} == {True, False}  # of both sets


def test_sets_with_images_of_some_steps_are_joined(tmp_path: Path) -> None:
    """Each sample has the images of its own step, and the actions from there on at the full rate."""
    load(tmp_path / "a", source(LIFT))
    (folder,) = (path for path in (tmp_path / "a").iterdir() if path.is_dir())
    thin = tmp_path / "thin"
    shutil.copytree(folder, thin)
    whole = read_decoded_set(folder)
    meta = json.loads((thin / "meta.json").read_text())
    kept = []
    for episode in meta["episodes"]:
        episode |= {"first_image": len(kept), "image_every": 4}
        kept += range(episode["first"], episode["end"], 4)
    meta["shape"][0] = len(kept)
    (thin / "meta.json").write_text(json.dumps(meta))
    (thin / "images.bin").write_bytes(np.ascontiguousarray(whole.images[kept]).tobytes())
    both = load(tmp_path / "cache", source(folder), source(thin))
    assert not (tmp_path / "cache").exists()
    windows = make_windows(both, list(both.episodes))
    assert len(windows) == 174 + len(kept)
    batches = Batches(both, windows, chunk_steps=5, device=CPU, data_on_device=False)
    batch = batches.get(np.arange(len(windows)))
    steps = np.array([*range(174), *kept])
    np.testing.assert_array_equal(batch.images.numpy(), whole.images[steps])
    np.testing.assert_array_equal(batch.proprio.numpy(), whole.proprio[steps])
    wrist = "robot0_eye_in_hand"
    seen = load(tmp_path / "cache", source(folder), source(thin), cameras=(wrist,))
    assert not (tmp_path / "cache").exists()  # one camera of both is mapped too
    assert seen.cameras == (wrist,)
    assert seen.sha256 != both.sha256
    batches = Batches(seen, windows, chunk_steps=5, device=CPU, data_on_device=False)
    np.testing.assert_array_equal(batches.get(np.arange(len(windows))).images.numpy(), whole.images[steps][:, 1:])
    alone = load(tmp_path / "cache", source(thin), cameras=(wrist,))
    batches = Batches(alone, make_windows(alone, list(alone.episodes)), chunk_steps=5, device=CPU, data_on_device=False)
    np.testing.assert_array_equal(batches.get(np.arange(len(kept))).images.numpy(), whole.images[kept][:, 1:])
    with pytest.raises(DemonstrationError, match="cannot be copied"):
        load(tmp_path / "cache", source(thin), cameras=(wrist, "agentview"))
    sample = 174 + kept.index(4)
    np.testing.assert_array_equal(batch.actions[sample].numpy(), whole.actions[4:9].astype(np.float32))


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    import h5py

    other = write_libero(tmp_path / "b.hdf5")
    with h5py.File(other, "a") as file:
        for demo in file["data"].values():
            for name in ("agentview_rgb", "eye_in_hand_rgb"):
                small = demo["obs"][name][:, ::2, ::2]
                del demo["obs"][name]
                demo["obs"][name] = small
    with pytest.raises(
        DemonstrationError, match=r"expected images of one size, got 42×42 in .*b\.hdf5 demo_0 and 84×84 in"
    ):
        load(tmp_path / "cache", source(LIFT), source(other))
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_window_never_leaves_its_demonstration(demonstrations: DemonstrationSet) -> None:
    windows = make_windows(demonstrations, list(demonstrations.episodes))
    batches = Batches(demonstrations, windows, chunk_steps=16, device=CPU, data_on_device=False)
    batch = batches.get(np.arange(len(windows)))
    assert len(windows) == sum(LENGTHS)
    for i in (0, 40, 43, 44, 58, 59, 116, 117, 173):
        place = next(e for e in demonstrations.episodes if e.first <= i < e.end)
        left = min(16, place.end - i)
        assert batch.valid[i].tolist() == [True] * left + [False] * (16 - left)
        expected = demonstrations.actions[i : i + left].astype(np.float32)
        np.testing.assert_array_equal(batch.actions[i, :left].numpy(), expected)
        assert (batch.actions[i, left:].numpy() == expected[-1]).all()
        np.testing.assert_array_equal(batch.images[i].numpy(), demonstrations.images[i])
        np.testing.assert_array_equal(batch.proprio[i].numpy(), demonstrations.proprio[i])


def test_a_stream_gives_the_batches_in_order(demonstrations: DemonstrationSet) -> None:
    windows = make_windows(demonstrations, list(demonstrations.episodes))
    batches = Batches(demonstrations, windows, chunk_steps=4, device=CPU, data_on_device=False)
    batches._on_device = False  # the threads that run ahead of a GPU
    orders = [SampleOrder(len(windows), 0).indices(8 * i, 8) for i in range(20)]
    for order, batch in zip(orders, batches.stream(orders), strict=True):
        np.testing.assert_array_equal(batch.proprio.numpy(), demonstrations.proprio[windows.steps[order]])


def test_instructions_are_counted_by_the_whole_set(tmp_path: Path) -> None:
    both = load(tmp_path, source(LIFT), source(write_libero(tmp_path / "b.hdf5"), "other", "drop the cube"))
    assert both.instructions == ("lift the cube", "drop the cube")
    windows = make_windows(both, [both.episodes[4]])
    assert set(windows.instructions.tolist()) == {1}


def test_the_order_is_a_function_of_the_place() -> None:
    order = SampleOrder(10, seed=3)
    whole = order.indices(0, 35)
    assert [sorted(whole[k : k + 10].tolist()) for k in (0, 10, 20)] == [list(range(10))] * 3
    assert whole[:10].tolist() != whole[10:20].tolist()
    pieces = [SampleOrder(10, seed=3).indices(first, 7) for first in range(0, 35, 7)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert SampleOrder(10, seed=4).indices(0, 10).tolist() != whole[:10].tolist()


def episodes(*counts: int) -> tuple[EpisodeRange, ...]:
    return tuple(
        EpisodeRange(
            name=f"{task}/{i}",
            task=str(task),
            suite="",
            instruction="",
            first=0,
            end=1,
            first_image=0,
            image_every=1,
            init_state_sha256="",
        )
        for task, count in enumerate(counts)
        for i in range(count)
    )


def test_the_split_is_by_demonstration_and_task() -> None:
    training, validation = split_episodes(episodes(50, 20, 1), 0.1, seed=0)
    assert [sum(e.task == task for e in validation) for task in "012"] == [5, 2, 0]
    assert {e.name for e in training}.isdisjoint(e.name for e in validation)
    assert len(training) + len(validation) == 71
    assert split_episodes(episodes(50), 0.1, seed=0) == split_episodes(episodes(50), 0.1, seed=0)
    assert split_episodes(episodes(50), 0.1, seed=0) != split_episodes(episodes(50), 0.1, seed=1)
    assert split_episodes(episodes(5), 0.0, seed=0)[1] == []
    assert len(split_episodes(episodes(2), 0.9, seed=0)[0]) == 1
    with pytest.raises(ValueError, match="--validation-fraction: expected at least 0 and below 1, got 1"):
        split_episodes(episodes(2), 1.0, seed=0)

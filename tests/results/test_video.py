from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from results.video import Caption, FrameLayout, choose_videos, video_path, write_video
from tasks.interface import Outcome
from tests.examples import episode, record
from tests.results.test_run_directory import files_no_larger_than

S, F, E = Outcome.SUCCESS, Outcome.TIMEOUT, Outcome.ERROR


def ids(choice: str, outcomes: dict[int, list[Outcome]]) -> list[str]:
    records = [record(episode(t, i), o) for t, row in outcomes.items() for i, o in enumerate(row)]
    chosen = choose_videos(records[::-1], choice)  # type: ignore[arg-type]
    return [f"{r.spec.task.index}/{r.spec.episode_id.split('/')[2]}" for r in chosen]


def test_what_is_worth_watching() -> None:
    outcomes = {0: [S, S, F, F, F], 1: [E, F, S], 2: [S]}
    assert ids("none", outcomes) == []
    assert ids("some", outcomes) == ["0/00", "0/02", "0/03", "1/01", "1/02", "2/00"]
    assert ids("failures", outcomes) == ["0/02", "0/03", "0/04", "1/01"]
    assert ids("all", outcomes) == [*(f"0/0{i}" for i in range(5)), "1/01", "1/02", "2/00"]


def test_paths_differ_by_view() -> None:
    assert video_path("a/03/07/r0") == "videos/a/03/07-r0.mp4"
    assert video_path("a/03/07/r0", policy_view=True) == "videos/a/03/07-r0.policy.mp4"


def layout(size_px: int = 101, outcome: Outcome = S, text: str = "pick up the bowl") -> FrameLayout:
    return FrameLayout(cameras=2, size_px=size_px, caption=Caption(outcome=outcome, text=text))


def frames(count: int, size_px: int, layout: FrameLayout) -> list[NDArray[np.uint8]]:
    left = np.full((size_px, size_px, 3), (200, 30, 30), np.uint8)
    right = np.full((size_px, size_px, 3), (30, 30, 200), np.uint8)
    right[: size_px // 2] = 255
    return [layout.frame(np.stack([left, right]), i / 20) for i in range(count)]


@pytest.mark.parametrize("size_px", [64, 101, 256])
def test_a_frame_keeps_pictures_pixel_for_pixel(size_px: int) -> None:
    shape = layout(size_px)
    (frame,) = frames(1, size_px, shape)
    assert frame.shape == (shape.height, shape.width, 3)
    assert shape.height % 2 == shape.width % 2 == 0
    assert (frame[:size_px, :size_px] == (200, 30, 30)).all()
    assert (frame[: size_px // 2, size_px + 2 : 2 * size_px + 2] == 255).all()
    assert (frame[size_px - 1, 2 * size_px + 1] == (30, 30, 200)).all()


def test_outcomes_are_marked_by_colour_and_word() -> None:
    strips = {o: layout(128, o).frame(np.zeros((2, 128, 128, 3), np.uint8), 0)[128:] for o in (S, F)}
    red, green, _ = np.moveaxis(strips[S][:, :2].astype(int), -1, 0)
    assert (green > red + 50).all()
    red, green, _ = np.moveaxis(strips[F][:, :2].astype(int), -1, 0)
    assert (red > green + 50).all()
    assert strips[S].max() > 200


def test_a_long_prompt_is_shortened_not_painted_over_the_time() -> None:
    black = np.zeros((2, 128, 128, 3), np.uint8)
    short, long = layout(128, text=""), layout(128, text="put the black bowl in the drawer " * 9)
    width = 40
    np.testing.assert_array_equal(short.frame(black, 1.0)[:, -width:], long.frame(black, 1.0)[:, -width:])


def test_a_video_plays_at_true_speed(tmp_path: Path) -> None:
    file = tmp_path / "videos" / "a.mp4"
    shape = layout()
    originals = frames(41, 101, shape)
    write_video(file, originals, width=shape.width, height=shape.height)
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 20
        decoded = list(container.decode(stream))
    assert [frame.time for frame in decoded] == pytest.approx([i / 20 for i in range(41)])
    for original, frame in zip(originals, decoded, strict=True):
        shown = frame.to_ndarray(format="rgb24").astype(int)
        assert np.abs(shown[:90, 5:95] - original[:90, 5:95]).max() < 12
    assert b"moov" in file.read_bytes()[:2000], "a browser wants the index first"


def test_the_same_frames_make_the_same_file(tmp_path: Path) -> None:
    """With its macroblock tree, x264 makes other files now and then at this width; the file says with what it was made."""
    base = np.random.default_rng(0).integers(0, 255, (112, 194, 3), dtype=np.uint8)
    base = uniform_filter(base, size=(7, 7, 1))  # smooth, as pictures are: noise has nothing to predict
    moving = [np.roll(base, step, axis=1) for step in range(40)]
    files = set()
    for megabytes in range(8):
        used_memory = np.random.default_rng(megabytes).bytes(megabytes * 300_000)  # the encoder's is not fresh either
        del used_memory
        write_video(tmp_path / "a.mp4", moving, width=194, height=112)
        files.add((tmp_path / "a.mp4").read_bytes())
    assert len(files) == 1
    assert b"mbtree=0" in files.pop()


def test_a_full_disk_leaves_no_half_video(tmp_path: Path) -> None:
    shape = layout()
    noise = np.random.default_rng(0).integers(0, 255, (60, shape.height, shape.width, 3), dtype=np.uint8)
    with files_no_larger_than(20_000), pytest.raises(OSError, match="File too large|Errno"):
        write_video(tmp_path / "a.mp4", noise, width=shape.width, height=shape.height)
    assert list(tmp_path.iterdir()) == []

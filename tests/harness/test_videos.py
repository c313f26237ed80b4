"""Videos from traces: right way round, not mirrored, at true speed, and the policy's view to the pixel."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from harness.cli import EXIT_INCOMPLETE, EXIT_OK, EXIT_USAGE
from results.run_directory import RunDirectory
from results.trace import read_trace, write_trace
from results.video import video_path
from tasks.interface import CAMERAS, Outcome
from tasks.suites import load_suite
from tests.harness.test_cli import call

TORCH = "tests.harness.torch_policy:make_torch_policy"
EPISODE = "libero_spatial/08/00/r0"


def decode(file: Path) -> list[NDArray[np.int64]]:
    with av.open(str(file)) as container:
        assert container.streams.video[0].average_rate == 20
        return [frame.to_ndarray(format="rgb24").astype(np.int64) for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Two expert episodes, one of them made a failure on paper, with the default videos."""
    tmp_path = tmp_path_factory.mktemp("videos")
    status, output, errors = call(
        tmp_path, suite=("libero_spatial",), tasks=("8",), episodes=2, videos="some", video_size=96
    )
    assert (status, errors) == (EXIT_OK, "")
    assert "Rendering 1 videos" in output
    return RunDirectory(tmp_path / "run")


@pytest.mark.sim
class TestAfterTheRun:
    def test_one_success_per_task(self, run: RunDirectory) -> None:
        assert [record.video for record in run.records() if record.video] == [video_path(EPISODE)]

    def test_one_frame_per_control_step(self, run: RunDirectory) -> None:
        record = run.records()[0]
        frames = decode(run.path / record.video)
        assert len(frames) == record.steps + 1
        assert frames[0].shape == (112, 2 * 96 + 2, 3)

    def test_what_lies_left_is_left_and_what_stands_up_stands_up(self, run: RunDirectory) -> None:
        """The camera's own geometry says where the plate is; a mirrored or upside-down picture has it elsewhere."""
        record = run.records()[0]
        first = decode(run.path / record.video)[0][:96, :96]
        column, row, away = projected("plate_1", run, size_px=96)
        assert away > 12, "the plate must lie far enough from the picture's centre lines for this test"
        spot = first[row - 2 : row + 3, column - 2 : column + 3]
        mirrored = first[row - 2 : row + 3, 95 - column - 2 : 95 - column + 3]
        upside_down = first[95 - row - 2 : 95 - row + 3, column - 2 : column + 3]
        assert spot.mean() > 165, "the plate is the brightest thing around"
        assert spot.mean() > max(mirrored.mean(), upside_down.mean()) + 40

    def test_success_is_marked(self, run: RunDirectory) -> None:
        for frame in decode(run.path / run.records()[0].video)[::20]:
            red, green, _ = frame[100:108, 1:4].mean(axis=(0, 1))
            assert green > red + 50

    def test_neither_the_same_command_nor_render_does_anything_twice(self, run: RunDirectory) -> None:
        file = run.path / video_path(EPISODE)
        before = file.stat().st_mtime_ns
        status, output, _ = call(
            run.path.parent, suite=("libero_spatial",), tasks=("8",), episodes=2, videos="some", video_size=96
        )
        assert status == EXIT_OK
        assert "Rendering" not in output
        status, output, _ = call(run.path.parent, render=run.path, videos="some")
        assert (status, "Rendering" in output) == (EXIT_OK, False)
        assert file.stat().st_mtime_ns == before


@pytest.fixture
def short(run: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy without videos, its traces cut to five steps: rendering in software takes its time."""
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("videos", "run.lock"))
    for record in RunDirectory(copy).records():
        trace = read_trace(copy / record.trace)
        states = {name: getattr(trace, name)[:6] for name in ("time_s", "qpos", "qvel", "site_alpha")}
        write_trace(copy / record.trace, dataclasses.replace(trace, actions=trace.actions[:5], **states))
    return RunDirectory(copy)


@pytest.mark.sim
class TestOnDemand:
    def test_any_episode_at_any_size(self, short: RunDirectory) -> None:
        episode_id = "libero_spatial/08/01/r0"
        for size, shape in ((321, (348, 644, 3)), (1024, (1112, 2050, 3))):
            status, output, _ = call(short.path.parent, render=short.path, only=(episode_id,), video_size=size)
            assert status == EXIT_OK
            assert video_path(episode_id) in output
            frames = decode(short.path / video_path(episode_id))
            assert (len(frames), frames[0].shape) == (6, shape)
            assert frames[0][:size].std() > 20

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"only": ("libero_spatial/08/44/r0",)}, "has no episode 'libero_spatial/08/44/r0'; it has 2"),
            ({"video_view": "policy"}, "saw no images; leave it at true"),
            ({"video_size": 8}, "--video-size: expected 64 to 2048 pixels, got 8"),
        ],
    )
    def test_wrong_input(self, run: RunDirectory, arguments: dict[str, Any], message: str) -> None:
        status, _, errors = call(run.path.parent, render=run.path, **arguments)
        assert status == EXIT_USAGE
        assert message in errors

    def test_a_missing_trace_is_named_and_the_others_are_rendered(self, short: RunDirectory) -> None:
        (short.path / short.records()[0].trace).unlink()
        status, _, errors = call(short.path.parent, render=short.path, videos="all", video_size=64)
        assert status == EXIT_INCOMPLETE
        assert f"no video of {EPISODE}" in errors
        assert "not a readable trace" in errors
        assert [bool(record.video) for record in short.records()] == [False, True]
        assert short.log.events()[-1].event == "video_failed"

    def test_a_folder_that_cannot_be_written_is_named(self, short: RunDirectory) -> None:
        (short.path / "videos").write_text("a file where a folder should be")
        status, _, errors = call(short.path.parent, render=short.path, only=(EPISODE,), video_size=64)
        assert status == EXIT_INCOMPLETE
        assert f"no video of {EPISODE}: " in errors
        assert "Traceback" not in errors


def test_no_run_to_render(tmp_path: Path) -> None:
    status, _, errors = call(tmp_path, render=tmp_path / "nothing")
    assert status == EXIT_USAGE
    assert "manifest.json: not a run manifest" in errors


@pytest.mark.sim
def test_the_policys_view_is_what_the_policy_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the protocol's size the frames are the observations, but for H.264; each is held until the next."""
    (tmp_path / "keeps_images.py").write_text(
        "import numpy as np\n"
        f"from {TORCH.split(':', maxsplit=1)[0]} import TorchPolicy\n"
        "class Keeps(TorchPolicy):\n"
        "    def act(self, observations):\n"
        "        for o in observations:\n"
        "            if o.episode_id != 'padding': np.save(f'seen-{o.step}.npy', o.images)\n"
        "        return super().act(observations)\n"
    )
    monkeypatch.chdir(tmp_path)
    status, _, errors = call(
        tmp_path,
        suite=("libero_spatial",),
        tasks=("8",),
        episodes=1,
        policy="keeps_images:Keeps",
        videos="failures",
        video_view="policy",
    )
    assert (status, errors) == (EXIT_OK, "")
    run = RunDirectory(tmp_path / "run")
    (record,) = run.records()
    assert record.outcome is Outcome.TIMEOUT
    frames = decode(run.path / video_path(record.spec.episode_id, policy_view=True))
    assert len(frames) == record.steps + 1
    query_steps = read_trace(run.path / record.trace).query_steps.tolist()
    assert query_steps == list(range(0, 220, 20))
    for step in (0, 20, 39, 200):
        seen = np.load(f"seen-{step - step % 20}.npy").astype(np.int64)
        for camera in range(len(CAMERAS)):
            shown = frames[step][:256, camera * 258 : camera * 258 + 256]
            assert np.abs(shown - seen[camera]).mean() < 4.0
            for wrong in (seen[camera][::-1], seen[camera][:, ::-1], seen[camera][::-1, ::-1]):
                assert np.abs(shown - wrong).mean() > 8.0


def projected(name: str, run: RunDirectory, size_px: int) -> tuple[int, int, int]:
    """Where the agent's camera sees a body at the start: (column, row, distance from the picture's centre lines) [px]."""
    from harness.sim.scene import Scene
    from harness.sim.stack import mujoco

    trace = read_trace(run.path / run.records()[0].trace)
    scene = Scene(load_suite("libero_spatial")[8])
    scene.place_fixtures(trace.fixture_poses)
    scene.data.qpos[:] = trace.qpos[0]
    mujoco.mj_forward(scene.model, scene.data)
    camera = scene.env.sim.model.camera_name2id("agentview")
    body = scene.env.obj_body_id[name]
    relative = scene.data.xpos[body] - scene.data.cam_xpos[camera]
    right, up, back = scene.data.cam_xmat[camera].reshape(3, 3).T @ relative
    focal_px = size_px / 2 / np.tan(np.deg2rad(scene.model.cam_fovy[camera]) / 2)
    x, y = focal_px * right / -back, focal_px * up / -back
    scene.close()
    return round(size_px / 2 + x), round(size_px / 2 - y), round(min(abs(x), abs(y)))


@pytest.mark.sim
class TestOneEpisodeForThePage:
    """What the review page starts for a video that is missing."""

    def start(self, run: RunDirectory, episode_id: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness.sim.render_episode", str(run.path), episode_id, "true", "96"]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    def test_it_is_rendered_and_says_how_far_it_is(self, run: RunDirectory, tmp_path: Path) -> None:
        record = run.records()[0]
        copied = RunDirectory(Path(shutil.copytree(run.path, tmp_path / "copy")))
        there = (copied.path / record.video).read_bytes()
        (copied.path / record.video).unlink()
        done = self.start(copied, record.spec.episode_id)
        assert done.returncode == 0, done.stderr
        frames = record.steps + 1
        said = done.stdout.splitlines()
        assert said[0] == f"5 of {frames}"
        assert said[-1] == f"{frames} of {frames}"
        assert (copied.path / record.video).read_bytes() == there  # as `vla-eval --render` draws it

    def test_what_cannot_be_rendered_is_said(self, run: RunDirectory) -> None:
        done = self.start(run, "libero_spatial/08/49/r0")
        assert done.returncode == 1
        assert "has no trace of an episode 'libero_spatial/08/49/r0'" in done.stderr

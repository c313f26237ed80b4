"""`vla-collect` as a user meets it: what it writes, and that others can read it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from harness.cli import EXIT_OK
from harness.collecting.arguments import CollectArguments
from harness.collecting.cli import EXIT_USAGE, run
from harness.sim.simulator import Simulator
from harness.terminal import Terminal
from results.run_directory import RunDirectory
from results.trace import read_trace
from tasks.demonstrations import DemonstrationFile, EpisodeReader, select_demonstrations
from tasks.demonstrations.decoded_set import DecodedSetReader
from tasks.interface import Outcome
from tasks.protocols import find_protocol
from tasks.suites import load_suite
from tests.harness.test_cli import call

STOVE = load_suite("libero_goal")[7]
"""Turn on the stove: 70 steps, the shortest."""
SIZE = 24


def collect(tmp_path: Path, output: str = "demos", **arguments: object) -> tuple[int, str, str]:
    """(exit status, output, errors) of a run in this process; its workers are real."""
    arguments.setdefault("workers", "1")
    with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
        status = run(
            CollectArguments(output=tmp_path / output, **arguments),  # type: ignore[arg-type]
            Terminal(
                out=Console(file=out, width=200, force_terminal=False),
                errors=Console(file=err, width=200, force_terminal=False),
            ),
        )
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two demonstrations of one task, the first stage and the second in commands of their own."""
    folder = tmp_path_factory.mktemp("collected")
    status, output, errors = collect(
        folder, suite=("libero_goal",), tasks=("7",), demos_per_task=2, noise=0.5, stage="traces"
    )
    assert status == EXIT_OK, errors
    assert "With images: vla-collect --stage images" in output
    status, output, errors = collect(folder, stage="images", size=SIZE)
    assert status == EXIT_OK, errors
    return folder / "demos"


@pytest.fixture(scope="module")
def file(collected: Path) -> Path:
    return collected / "libero_goal" / f"{STOVE.name}_demo.hdf5"


@pytest.mark.sim
def test_a_plate_is_slid_without_noise(tmp_path: Path) -> None:
    """Disturbed as hands are that only move, the fingers leave the plate: eight of nine such demonstrations failed."""
    status, _, errors = collect(
        tmp_path, suite=("libero_goal",), tasks=("5",), demos_per_task=1, first_seed=50001, noise=1.0, stage="traces"
    )
    assert status == EXIT_OK, errors
    run = RunDirectory(tmp_path / "demos")
    (record,) = run.records()
    trace = read_trace(run.path / record.trace)
    slides = trace.labels[:, 6] < 0
    slides[-1] = False  # nothing is left to do
    executed = trace.actions[: len(slides)]
    assert slides.sum() > 50
    np.testing.assert_array_equal(executed[slides], trace.labels[slides])
    assert (executed[~slides, :6] != trace.labels[~slides, :6]).any(axis=1).sum() > 30, "elsewhere there is noise"


@pytest.mark.sim
def test_a_bowl_that_is_put_down_beside_the_plate_is_taken_again(tmp_path: Path) -> None:
    task = load_suite("libero_spatial")[6]
    status, _, errors = collect(
        tmp_path,
        suite=("libero_spatial",),
        tasks=("6",),
        demos_per_task=1,
        first_seed=60002,
        noise=1.0,
        misplaced=1.0,
        stage="traces",
    )
    assert status == EXIT_OK, errors
    run = RunDirectory(tmp_path / "demos")
    (record,) = run.records()
    assert record.outcome == Outcome.SUCCESS
    trace = read_trace(run.path / record.trace)
    model = Simulator(task, find_protocol("openvla")).scene.model
    bowl, plate = (
        trace.qpos[:, model.joint(f"{name}_joint0").qposadr[0] :][:, :3] for name in ("akita_black_bowl_1", "plate_1")
    )
    beside_m = np.linalg.norm((bowl - plate)[:, :2], axis=1)
    executed, told = trace.actions[:, 6] > 0, trace.labels[: len(trace.actions), 6] > 0
    dropped = np.flatnonzero(~executed & told & (beside_m[: len(executed)] < 0.1))  # fingers open, told to hold on
    assert len(dropped) >= 5
    lies = slice(dropped[-1] + 5, dropped[-1] + 15)
    assert (beside_m[lies] > 0.03).all()
    assert np.ptp(bowl[lies], axis=0).max() < 0.005
    assert beside_m[-1] < 0.02


@pytest.mark.sim
def test_the_file_is_liberos_attributes_and_all(file: Path) -> None:
    with h5py.File(file) as opened:
        data = opened["data"]
        assert {
            "env_name",
            "problem_info",
            "macros_image_convention",
            "bddl_file_name",
            "bddl_file_content",
            "env_args",
        } <= set(data.attrs)
        assert json.loads(data.attrs["problem_info"])["language_instruction"] == STOVE.instruction_bddl
        assert json.loads(data.attrs["env_args"])["env_kwargs"]["camera_heights"] == SIZE
        assert data.attrs["num_demos"] == 2
        assert data.attrs["total"] == sum(len(demo["actions"]) for demo in data.values())
        for demo in data.values():
            steps = demo.attrs["num_samples"]
            shapes = {name: demo[name].shape for name in ("actions", "robot_states", "rewards", "dones")}
            assert shapes == {"actions": (steps, 7), "robot_states": (steps, 9), "rewards": (steps,), "dones": (steps,)}
            assert demo["obs/agentview_rgb"].shape == demo["obs/eye_in_hand_rgb"].shape == (steps, SIZE, SIZE, 3)
            assert {"ee_ori", "ee_pos", "ee_states", "gripper_states", "joint_states"} <= set(demo["obs"])
            assert (demo["rewards"][-1], demo["dones"][-1], demo["rewards"][:-1].max()) == (1, 1, 0)
            np.testing.assert_array_equal(demo.attrs["init_state"], demo["states"][0])
            np.testing.assert_allclose(np.linalg.norm(demo["robot_states"][:, 5:], axis=1), 1.0, atol=1e-6)
            assert demo.attrs["model_file"].startswith("<mujoco")


@pytest.mark.sim
def test_our_reader_finds_observations_before_actions_and_the_right_states(collected: Path, file: Path) -> None:
    cameras = ("agentview", "robot0_eye_in_hand")
    with EpisodeReader(file, cameras=cameras, convention="rotated_180") as reader:
        assert reader.timing == "before"
        episode = reader.episode("demo_1")
    record = RunDirectory(collected).records()[1]
    trace = read_trace(collected / record.trace)
    np.testing.assert_array_equal(episode.proprio, trace.query_proprio)
    np.testing.assert_array_equal(episode.actions, trace.labels)
    assert episode.images.std() > 20  # a picture, not a blank


@pytest.mark.sim
def test_what_was_learnt_from_and_what_was_done_are_kept_apart(file: Path) -> None:
    with DemonstrationFile(file) as demonstrations:
        one = demonstrations.demonstration("demo_0")
    assert not np.array_equal(one.actions, one.executed_actions)
    np.testing.assert_array_equal(one.actions[:, 6], one.executed_actions[:, 6])


@pytest.mark.sim
@pytest.mark.parametrize("what", ["file", "traces"])
def test_replaying_it_ends_in_the_same_state_bit_for_bit(
    tmp_path: Path, collected: Path, file: Path, what: str
) -> None:
    status, output, errors = call(tmp_path, policy=f"replay:{file if what == 'file' else collected}")
    assert status == EXIT_OK, errors
    assert "Replay: 2 of 2 final states equal the recorded ones bit for bit." in output


@pytest.mark.sim
def test_the_same_command_again_does_nothing_and_another_is_refused(collected: Path) -> None:
    before = (collected / "episodes.jsonl").read_bytes()
    arguments = {"suite": ("libero_goal",), "tasks": ("7",), "demos_per_task": 2, "size": SIZE}
    status, output, errors = collect(collected.parent, **arguments, noise=0.5)
    assert status == EXIT_OK, errors
    assert "Rendering" not in output
    assert (collected / "episodes.jsonl").read_bytes() == before
    status, _, errors = collect(collected.parent, **arguments, noise=1.0)
    assert status == EXIT_USAGE
    assert "holds 2 episodes of another run; nothing was changed" in errors
    status, _, errors = collect(collected.parent, stage="images", size=SIZE + 8)
    assert status == EXIT_USAGE
    assert f"they are not the 2 of {SIZE + 8} px asked for. Remove it" in errors


@pytest.mark.sim
def test_drawn_straight_into_the_training_cache_they_are_the_same(tmp_path: Path, collected: Path, file: Path) -> None:
    """The traces alone go to the other machine; what `vla-train` maps there is what it decodes from the HDF5."""
    shutil.copytree(collected, tmp_path / "demos", ignore=shutil.ignore_patterns("*.hdf5"))
    status, output, errors = collect(tmp_path, stage="images", size=SIZE, format="cache")
    assert status == EXIT_OK, errors
    folder = tmp_path / "demos" / "libero_goal_cache"
    assert f"{folder}: 2 demonstrations. Train: vla-train --data-path {folder}" in output
    (from_cache,), (from_file,) = (select_demonstrations([path], [], "file_name") for path in (folder, file))
    assert (from_cache.task, from_cache.suite, from_cache.instruction) == (
        from_file.task,
        from_file.suite,
        from_file.instruction,
    )
    cameras = ("agentview", "robot0_eye_in_hand")
    with (
        DecodedSetReader(
            folder, task=STOVE.name, suite="libero_goal", cameras=cameras, convention="rotated_180"
        ) as drawn,
        EpisodeReader(file, cameras=cameras, convention="rotated_180") as decoded,
    ):
        for ours, theirs in zip(drawn.demos, decoded.demos, strict=True):
            a, b = drawn.episode(ours), decoded.episode(theirs)
            np.testing.assert_array_equal(a.images, b.images)
            np.testing.assert_array_equal(a.proprio, b.proprio)
            np.testing.assert_array_equal(a.actions, b.actions)
            assert a.init_state_sha256 == b.init_state_sha256
    status, output, errors = collect(tmp_path, stage="images", size=SIZE, format="cache")
    assert (status, "Rendering" in output) == (EXIT_OK, False), errors
    status, _, errors = collect(tmp_path, stage="images", size=SIZE + 8, format="cache")
    assert status == EXIT_USAGE
    assert f"is there already, and it is not the set of 2 demonstrations of {SIZE + 8} px asked for" in errors


@pytest.mark.sim
def test_robomimics_own_reader_opens_it(tmp_path: Path, file: Path) -> None:
    """robomimic 0.1.0 from the package index, without what it needs for training: stand-ins for imports its reader never uses."""
    installed = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            tmp_path / "rm",
            "robomimic==0.1.0",
            "six",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.skip(f"robomimic cannot be installed here: {installed.stderr[-300:]}")
    program = f"""
import sys, types
sys.path.insert(0, {str(tmp_path / "rm")!r})
for name in ("torchvision", "torchvision.models", "torchvision.transforms", "torchvision.transforms.functional",
             "tensorboardX", "egl_probe", "imageio"):
    module = sys.modules[name] = types.ModuleType(name)
    if "." in name:
        setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module)
import robomimic.utils.obs_utils as obs_utils
import robomimic.utils.file_utils as file_utils
from robomimic.utils.dataset import SequenceDataset
cameras = ["agentview_rgb", "eye_in_hand_rgb"]
obs_utils.initialize_obs_utils_with_obs_specs({{"obs": {{"low_dim": ["ee_pos", "ee_ori"], "rgb": cameras, "image": cameras}}}})
dataset = SequenceDataset(
    hdf5_path={str(file)!r}, obs_keys=["ee_pos", *cameras], dataset_keys=["actions", "rewards", "dones"], frame_stack=1,
    seq_length=4, pad_frame_stack=True, pad_seq_length=True, hdf5_cache_mode=None, load_next_obs=False)
sample = dataset[len(dataset) - 1]
print(len(dataset), sample["actions"].shape, sample["obs"]["eye_in_hand_rgb"].shape,
      file_utils.get_env_metadata_from_dataset({str(file)!r})["env_name"])
"""
    read = subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=False, capture_output=True, text=True)
    with h5py.File(file) as opened:
        total = opened["data"].attrs["total"]
    expected = f"{total} (4, 7) (4, 3, {SIZE}, {SIZE}) Libero_Tabletop_Manipulation"
    assert read.stdout.splitlines()[-1:] == [expected], read.stderr


@pytest.mark.sim
def test_the_expert_corrects_a_policy_that_drives(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").touch()
    status, output, errors = collect(
        tmp_path,
        suite=("libero_goal",),
        tasks=("7",),
        demos_per_task=1,
        stage="traces",
        checkpoint=tmp_path / "checkpoint",
        policy="tests.harness.driving_policy:load",
        relabel="expert",
        expert_share=0.5,
        seed=1,
    )
    assert status == EXIT_OK, errors + output
    run_dir = RunDirectory(tmp_path / "demos")
    (record,) = run_dir.records()
    trace = read_trace(run_dir.path / record.trace)
    drove = (trace.actions == [0.0, 0.0, -0.3, 0.0, 0.0, 0.0, -1.0]).all(axis=1)
    assert 0.2 < drove.mean() < 0.8
    np.testing.assert_array_equal(trace.actions[~drove], trace.labels[~drove])
    early, low = drove & (trace.query_proprio[:, 2] > 1.1), drove & (trace.query_proprio[:, 2] < 0.97)
    assert early.any()
    assert low.any()
    assert (trace.labels[early, 0] == -1.0).all()  # far from the stove: go there
    assert (np.abs(trace.labels[low, 0]) < 0.6).all()  # pushed down beside the knob: the expert works on it
    assert record.outcome == Outcome.SUCCESS


def test_wrong_input_is_said_in_a_line(tmp_path: Path) -> None:
    status, _, errors = collect(tmp_path)
    assert status == EXIT_USAGE
    assert errors.startswith("vla-collect: name at least one suite, such as --suite libero_spatial.")
    status, _, errors = collect(tmp_path, suite=("libero_90",), tasks=("18",))
    assert status == EXIT_USAGE
    assert "has no grasp for chefmate_8_frypan" in errors
    status, _, errors = collect(tmp_path, stage="images")
    assert status == EXIT_USAGE
    assert "no traces of demonstrations; make them with `vla-collect --stage traces`" in errors
    assert not (tmp_path / "demos").exists()

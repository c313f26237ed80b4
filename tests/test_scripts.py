"""The scripts run as the README says: from any folder, with nothing but the installed package."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.sim.privileged import SimulatorPrivilegedState
from harness.sim.simulator import Simulator
from tasks.interface import ActionChunk, EpisodeSpec, Observation, Official, OpenLoopSpec, PolicyNeeds
from tasks.protocols import find_protocol
from tasks.suites import load_suite
from tests.vla_vggt.examples import observation
from vla_vggt.pretrained import find_shipped

SCRIPTS = Path(__file__).parents[1] / "scripts"
USERS_OF_TESTS = sorted(path.name for path in SCRIPTS.glob("*.py") if "from tests." in path.read_text())


@pytest.mark.parametrize("name", [name for name in USERS_OF_TESTS if name != "stock_rollouts.py"])
def test_a_script_finds_the_stock_environment_in_tests(name: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    program = (
        "import importlib.util, runpy, sys;"
        f"sys.path[0] = {str(SCRIPTS)!r};"  # as `python scripts/NAME.py` has it
        f"runpy.run_path({str(SCRIPTS / name)!r}, run_name='imported');"
        "assert importlib.util.find_spec('tests.harness.stock') is not None"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_there_are_such_scripts() -> None:
    assert "bench_rollout.py" in USERS_OF_TESTS


@pytest.fixture
def scripts_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.usefixtures("scripts_importable")
def test_the_bowl_a_scene_does_not_mean_is_another_tasks() -> None:
    from swap_instructions import first_taken, load, other_task

    tasks = load_suite("libero_spatial")
    others = {task.index: other_task(tasks, task).index for task in tasks}
    assert others == {0: 1, 1: 6, 2: 8, 3: 9, 4: 9, 5: 3, 6: 7, 7: 9, 8: 1, 9: 7}  # read off the BDDL files by eye
    heights = np.full((50, 2), [0.90, 1.10])
    assert first_taken(heights) == "none"
    heights[30:, 1] += 0.05
    assert first_taken(heights) == "the other"
    heights[20:25, 0] += 0.05
    assert first_taken(heights) == "meant by the scene"
    policy = load(find_shipped(["libero_spatial"]), device="cpu")
    heard = []
    policy._policy.act = lambda observations: heard.extend(seen.instruction for seen in observations)  # type: ignore
    policy.act([observation(0, size=256, instruction=tasks[0].instruction_file_name)])
    assert heard == [tasks[1].instruction_file_name]


@pytest.mark.sim
@pytest.mark.usefixtures("scripts_importable")
def test_a_bowls_height_is_found_in_a_trace() -> None:
    from swap_instructions import places_in_state

    (task, *_) = load_suite("libero_spatial")
    simulator = Simulator(task, find_protocol("openvla"))
    spec = {"episode_id": "libero_spatial/00/00/r0", "repeat": 0, "protocol": "openvla"}
    simulator.reset(EpisodeSpec(task=task, init=Official(index=0), **spec))  # type: ignore[arg-type]
    state = SimulatorPrivilegedState(simulator)
    heights = [state.position_world(f"akita_black_bowl_{i}")[2] for i in (1, 2)]
    assert simulator.scene.data.qpos[places_in_state(task)].tolist() == pytest.approx(heights, abs=1e-6)


def test_demonstrations_are_judged_by_what_the_hand_does() -> None:
    sys.path.insert(0, str(SCRIPTS))
    try:
        from check_demonstrations import SOON_STEPS, hand_of
    finally:
        sys.path.remove(str(SCRIPTS))
    labels = np.zeros((200, 7))
    labels[:, 6] = -1
    positions = np.zeros((200, 3))
    positions[:, 0] = np.linspace(0.2, 0.0, 200)  # 1 mm a step
    assert (hand_of(labels, positions).grasps, hand_of(labels, positions).missed) == (0, 0)
    labels[50:60, 6] = 1  # missed
    labels[100:170, 6] = 1
    hand = hand_of(labels, positions)
    assert (hand.grasps, hand.missed) == (2, 1)
    assert hand.hovered == 9  # within 10 mm
    labels[50 : 50 + SOON_STEPS, 6] = 1
    labels[50 + SOON_STEPS : 99, 6] = -1
    assert hand_of(labels, positions).missed == 0  # held for long, then dropped
    positions[:50] = positions[50]
    assert hand_of(labels, positions).hovered == 50


@pytest.mark.usefixtures("scripts_importable")
def test_a_policy_that_looks_through_one_camera_is_sensitive_to_that_one() -> None:
    from sensitivity import Arguments, effects_of, possible_changes, shifted

    class LooksThroughTheWrist:
        needs = PolicyNeeds(
            cameras=("agentview", "robot0_eye_in_hand"),
            image_convention="raw",
            batch_size=4,
            ensemble=OpenLoopSpec(execute_steps=8),
        )

        def act(self, seen: list[Observation]) -> list[ActionChunk]:
            assert len(seen) == 4
            columns = [float(o.images[1, :, :8].mean()) / 255 for o in seen]
            return [
                ActionChunk(actions=np.full((16, 7), column) + o.proprio[0])
                for column, o in zip(columns, seen, strict=True)
            ]

    image = np.arange(10 * 10 * 3, dtype=np.uint8).reshape(10, 10, 3)
    np.testing.assert_array_equal(shifted(image, 0.2, (0, 1))[:, 0], image[:, 2])
    np.testing.assert_array_equal(shifted(image, 0.2, (0, 1))[:, -1], image[:, -1])
    seen = [observation(number) for number in range(6)]
    prompts = list(dict.fromkeys([*(o.instruction for o in seen), "another"]))
    arguments = Arguments(data=SCRIPTS, checkpoint=SCRIPTS)
    changes = possible_changes(LooksThroughTheWrist.needs.cameras, prompts, arguments)
    effects = effects_of(LooksThroughTheWrist(), seen, changes, 8)  # type: ignore[arg-type]
    moved = {name for name, values in effects.items() if values.max() > 1e-6}
    assert moved == {"robot0_eye_in_hand: grey", "robot0_eye_in_hand: shifted by 4%", "hand said to be 2 cm beside"}
    assert effects["hand said to be 2 cm beside"] == pytest.approx(0.02 / 3)  # one axis of three


@pytest.mark.usefixtures("scripts_importable")
class TestAblationsOnTwoGpus:
    """Trainings and evaluations are played: no GPU is needed for who does what where."""

    def play(
        self, monkeypatch: pytest.MonkeyPatch, arguments: Any, train: Any, evaluation_s: float = 0.0
    ) -> dict[str, list[float]]:
        import ablations

        def evaluate(_: object, gpu: str, checkpoint: Path, name: str, how: tuple[str, ...]) -> float:
            time.sleep(evaluation_s)
            assert checkpoint.name.startswith(gpu), "evaluated where it was trained"
            assert bool(how) == (name == "temporal ensembling")
            return float(checkpoint.suffix[1:]) + (0.5 if how else 0.0)

        monkeypatch.setattr(ablations, "visible_gpus", lambda: ["4", "7"])
        monkeypatch.setattr(ablations, "train", train)
        monkeypatch.setattr(ablations, "evaluate", evaluate)
        return ablations.compare(arguments, ["--lr", "1"])

    def arguments(self, tmp_path: Path, **changes: Any) -> Any:
        from ablations import Arguments

        return Arguments(data=tmp_path, output=tmp_path, **changes)

    def test_each_training_happens_once_and_both_gpus_work(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        both = threading.Barrier(2)
        trained: list[tuple[str, int, list[str]]] = []

        def train(_: object, gpu: str, arm: str, seed: int, flags: list[str]) -> Path:
            both.wait(timeout=10)  # ten trainings, two at a time: neither GPU does them alone
            trained.append((arm, seed, flags))
            return Path(f"{gpu}.{seed}")

        rates = self.play(monkeypatch, self.arguments(tmp_path, seeds=2), train)
        assert rates == {
            "full": [0.0, 1.0],
            "no graph": [0.0, 1.0],
            "no wrist camera": [0.0, 1.0],
            "no proprioception": [0.0, 1.0],
            "shifted less": [0.0, 1.0],
            "temporal ensembling": [0.5, 1.5],
        }
        assert len({(arm, seed) for arm, seed, _ in trained}) == len(trained) == 10
        assert {tuple(flags) for arm, _, flags in trained if arm == "no graph"} == {("--lr", "1", "--neighbours", "0")}

    def test_the_first_that_fails_ends_it(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        trained: list[int] = []

        def train(_: object, gpu: str, arm: str, seed: int, __: list[str]) -> Path:
            trained.append(seed)
            time.sleep(0.001)
            if (arm, seed) == ("no graph", 2):  # of what this GPU trained before, the evaluation runs
                raise SystemExit("out of memory")
            return Path(f"{gpu}.{seed}")

        with pytest.raises(SystemExit, match="out of memory"):
            self.play(monkeypatch, self.arguments(tmp_path, seeds=100), train, evaluation_s=0.3)
        assert len(trained) < 100, "the other GPU begins nothing new while the first one's evaluation runs"

    def test_every_failure_is_shown(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        both = threading.Barrier(2)

        def train(_: object, gpu: str, *__: object) -> Path:
            both.wait(timeout=10)
            raise SystemExit(f"GPU {gpu} is full")

        with pytest.raises(SystemExit, match="GPU 4 is full"):
            self.play(monkeypatch, self.arguments(tmp_path), train)
        assert "GPU 7 is full" in capsys.readouterr().err

    def test_workers_are_shared(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        seen = set()

        def train(arguments: Any, gpu: str, arm: str, seed: int, __: list[str]) -> Path:
            seen.add(arguments.workers)
            return Path(f"{gpu}.{seed}")

        monkeypatch.setattr("ablations.count_workers", lambda text, on_gpu: {"auto": 13 if on_gpu else 0}[text])
        self.play(monkeypatch, self.arguments(tmp_path), train)
        self.play(monkeypatch, self.arguments(tmp_path, workers="5"), train)
        assert seen == {"6", "5"}


@pytest.mark.usefixtures("scripts_importable")
class TestWhichGpusTheAblationsUse:
    @pytest.fixture(autouse=True)
    def two_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda index=0: "H100")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def test_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from ablations import visible_gpus

        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        assert visible_gpus() == [""]

    def test_all_or_those_chosen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from ablations import visible_gpus

        assert visible_gpus() == ["0", "1"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-b,")
        assert visible_gpus() == ["2", "GPU-b"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,-1,1")
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)  # as CUDA reads that
        assert visible_gpus() == ["0"]

    def test_of_one_kind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from ablations import visible_gpus

        monkeypatch.setattr("torch.cuda.get_device_name", lambda index=0: ["T4", "A100"][index])
        with pytest.raises(SystemExit, match="expected GPUs of one kind, for a fair comparison, got A100, T4: choose"):
            visible_gpus()

    @pytest.mark.parametrize(("gpu", "environment"), [("7", "7"), ("", "3")])
    def test_a_command_sees_its_own(self, monkeypatch: pytest.MonkeyPatch, gpu: str, environment: str) -> None:
        import ablations

        seen = []

        def run(command: list[str], env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
            seen.append(env["CUDA_VISIBLE_DEVICES"])
            return subprocess.CompletedProcess(command, 0)

        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
        monkeypatch.setattr(subprocess, "run", run)
        ablations.call(["vla_vggt.cli"], gpu, "training")
        assert seen == [environment]

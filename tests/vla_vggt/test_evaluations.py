"""Evaluation in the loop: what is logged, which checkpoint is the best, and that a failing one harms nothing."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_language_model import save_tiny_language_model
from tests.vla_vggt.examples import interrupt_at, train_arguments
from vla_vggt.training import evaluations as module
from vla_vggt.training.checkpoint import load_policy, read_description
from vla_vggt.training.evaluations import EvaluationPlan, Evaluations
from vla_vggt.training.setup import prepare_training
from vla_vggt.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::tasks.demonstrations.UnnamedTaskWarning")
STAND_IN = (sys.executable, str(Path(__file__).parent / "stand_in_eval.py"))
PLAN = EvaluationPlan(suites=("libero_goal",), tasks=(), episodes=4, flags=("--workers", "1"))


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_VGGT_CACHE", str(tmp_path / "cache"))


def checkpoint(folder: Path, step: int) -> Path:
    """What the stand-in asks of one."""
    made = folder / f"{step:06d}"
    made.mkdir(parents=True)
    (made / "model.safetensors").touch()
    return made


def evaluations(folder: Path, said: list[str], **behaviour: dict[str, Any]) -> Evaluations:
    (folder / "evaluations").mkdir(parents=True, exist_ok=True)
    (folder / "evaluations" / "behaviour.json").write_text(
        json.dumps({name.removeprefix("at"): how for name, how in behaviour.items()})
    )
    return Evaluations(folder, PLAN, say=said.append, command=STAND_IN)


def test_one_at_a_time_and_of_those_waiting_the_newest(tmp_path: Path) -> None:
    said: list[str] = []
    running = evaluations(tmp_path, said, at1={"successes": 1, "wait_for": "go"}, at3={"successes": 4})
    folders = {step: checkpoint(tmp_path / "checkpoints", step) for step in (1, 2, 3)}
    for step, folder in folders.items():
        running.submit(step, folder)
    assert list(running.collect()) == []
    assert running.in_use == {folders[1], folders[3]}
    assert said == ["evaluation: step 2 is passed over, step 1 is still running"]
    (tmp_path / "evaluations" / "go").touch()
    first, third = running.finish()
    assert (first.step, first.rate, first.failure) == (1, 0.25, "libero_goal/03/01/r0")
    assert first.video == tmp_path / "evaluations/000001/videos/libero_goal/03/01-r0.mp4"
    assert (third.step, third.rate, third.failure, third.video) == (3, 1.0, "", None)
    assert said[1:] == [
        f"evaluation of step {step}: libero_goal {n}/4 = {n * 25}.0% (95 % interval 10.0% – 90.0%)"
        for step, n in ((1, 1), (3, 4))
    ]
    assert "niceness 19" in (tmp_path / "evaluations" / "000003.log").read_text()
    assert running.in_use == set()
    assert {result.step: result.rate for result in running.earlier()} == {1: 0.25, 3: 1.0}


def test_a_crash_is_said_and_the_next_one_runs(tmp_path: Path) -> None:
    said: list[str] = []
    running = evaluations(tmp_path, said, at1={"crash": True})
    for step in (1, 2):
        running.submit(step, checkpoint(tmp_path / "checkpoints", step))
    (only,) = running.finish()
    assert only.step == 2
    log = tmp_path / "evaluations" / "000001.log"
    assert said[0] == f"evaluation of step 1 failed: vla-eval ended with exit status 1; see {log}. Training goes on."
    assert "Segmentation fault" in log.read_text()


def test_episodes_without_a_result_are_no_result(tmp_path: Path) -> None:
    said: list[str] = []
    running = evaluations(tmp_path, said)
    running.submit(1, checkpoint(tmp_path / "checkpoints", 1))
    assert len(list(running.finish())) == 1
    file = tmp_path / "evaluations" / "000001" / "summary.json"
    summary = json.loads(file.read_text())
    summary["suites"][0]["missing"] = 1
    file.write_text(json.dumps(summary))
    assert running.earlier() == []


def test_closing_stops_it(tmp_path: Path) -> None:
    running = evaluations(tmp_path, [], at1={"wait_for": "never"})
    running.submit(1, checkpoint(tmp_path / "checkpoints", 1))
    assert running._running is not None
    process = running._running.process
    assert process.poll() is None
    running.close()
    assert process.poll() is not None
    assert running.in_use == set()


def prepare(
    log_dir: Path, language_model: Path, monkeypatch: pytest.MonkeyPatch, behaviour: dict[str, Any], **changes: Any
) -> tuple[Trainer, list[str]]:
    monkeypatch.setattr(module, "HARNESS", STAND_IN)
    monkeypatch.setattr(Evaluations.__init__, "__kwdefaults__", {"command": STAND_IN})
    said: list[str] = []
    (log_dir / "evaluations").mkdir(parents=True, exist_ok=True)
    (log_dir / "evaluations" / "behaviour.json").write_text(json.dumps(behaviour))
    given = {"eval_every": 2, "eval_suite": ("libero_goal",), "save_every": 100, "log_every": 1} | changes
    arguments = train_arguments(log_dir, language_model, **given)
    return prepare_training(arguments, say=said.append, on_progress=lambda progress: None), said


def patiently(trainer: Trainer) -> Trainer:
    """Every evaluation ends before the next step begins."""
    original = trainer.train_step

    def step(batches: Any) -> Any:
        running = trainer._evaluations
        assert running is not None
        while running._running is not None and running._running.process.poll() is None:
            time.sleep(0.01)
        return original(batches)

    trainer.train_step = step  # type: ignore[method-assign]
    return trainer


def test_success_is_logged_at_the_checkpoints_step_and_decides_which_is_best(
    tmp_path: Path, language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    behaviour = {"2": {"successes": 1}, "4": {"successes": 3}, "6": {"successes": 2}}
    trainer, said = prepare(folder, language_model, monkeypatch, behaviour, best_by="success")
    patiently(trainer).run()
    assert [text.split(":")[0] for text in said if text.startswith("evaluation")] == [
        f"evaluation of step {step}" for step in (2, 4, 6)
    ]
    assert read_description(folder / "checkpoints" / "best").step == 4
    assert load_policy(folder / "best_model.pth").description.step == 4
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["000004", "000006", "best", "last"]
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [(e.step, e.value) for e in events.Scalars("evaluation_libero_goal/success")] == [
        (2, 0.25),
        (4, 0.75),
        (6, 0.5),
    ]
    assert [e.value for e in events.Scalars("evaluation_libero_goal/low_95")] == pytest.approx([0.1] * 3)
    assert len(events.Scalars("evaluation_tasks/libero_goal/03")) == 3
    (failure,) = events.Images("failure/libero_goal/03/01/r0")  # of step 2
    assert (failure.step, failure.width, failure.height) == (2, 64, 32)
    assert failure.encoded_image_string.startswith(b"GIF89a")


def test_after_an_interruption_what_was_found_counts_and_what_is_missing_is_made_up_for(
    tmp_path: Path, language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    behaviour = {"2": {"successes": 3}, "4": {"wait_for": "never"}, "6": {"successes": 2}}
    trainer, _ = prepare(folder, language_model, monkeypatch, behaviour, best_by="success")
    interrupt_at(patiently(trainer), 4)
    assert read_description(folder / "checkpoints" / "last").step == 4
    (folder / "checkpoints" / "best").unlink()
    (folder / "checkpoints" / "best").symlink_to("000004")  # as if it had been killed just before it took the result
    behaviour["4"] = {"successes": 0}
    again, said = prepare(folder, language_model, monkeypatch, behaviour, best_by="success")
    patiently(again).run()
    assert [text.split(":")[0] for text in said if text.startswith("evaluation")] == [
        "evaluation of step 4",
        "evaluation of step 6",
    ]
    assert read_description(folder / "checkpoints" / "best").step == 2
    assert load_policy(folder / "best_model.pth").description.step == 2


def test_an_evaluation_that_was_running_is_made_up_for_though_later_checkpoints_were_saved(
    tmp_path: Path, language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    behaviour: dict[str, Any] = {"4": {"wait_for": "never"}}
    trainer, _ = prepare(folder, language_model, monkeypatch, behaviour, eval_every=4, save_every=1, max_steps=7)
    interrupt_at(trainer, 6)
    assert read_description(folder / "checkpoints" / "last").step == 6
    run = folder / "evaluations" / "000004"  # as if the evaluation had ended, and nobody had taken its result
    again, said = prepare(folder, language_model, monkeypatch, {}, eval_every=4, save_every=1, max_steps=7)
    patiently(again).run()
    assert [text.split(":")[0] for text in said if text.startswith("evaluation")] == [
        "evaluation of step 4",
        "evaluation of step 7",
    ]
    (run / "logged").unlink()
    finished, said = prepare(folder, language_model, monkeypatch, {}, eval_every=4, save_every=1, max_steps=7)
    finished.run()
    assert not [text for text in said if text.startswith("evaluation")]
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("evaluation_libero_goal/success")].count(4) == 2


def test_results_to_other_terms_or_of_another_run_are_set_aside(
    tmp_path: Path, language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    trainer, _ = prepare(folder, language_model, monkeypatch, {}, eval_every=3)
    trainer.run()
    other, said = prepare(folder, language_model, monkeypatch, {}, eval_every=3, eval_episodes=7)
    (folder / "evaluations" / "behaviour.json").unlink()
    monkeypatch.setattr(Evaluations, "submit", lambda *_: None)
    other.run()
    assert said[-1] == f"evaluations of another run, or to other terms, are in {folder}/evaluations.1 now"
    assert (folder / "evaluations.1" / "000006" / "summary.json").is_file()
    assert [path.name for path in (folder / "evaluations").iterdir()] == ["terms.json"]


def test_what_cannot_start_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "evaluations").touch()
    running = Evaluations(tmp_path, PLAN, say=said.append, command=STAND_IN)
    running.submit(1, checkpoint(tmp_path / "checkpoints", 1))
    assert said[0].startswith("evaluation of step 1 cannot start: ")
    assert list(running.finish()) == []


@pytest.mark.sim
def test_the_real_thing(tmp_path: Path, language_model: Path) -> None:
    """`vla-eval` itself, on one episode."""
    said: list[str] = []
    arguments = train_arguments(
        tmp_path / "run",
        language_model,
        max_steps=2,
        eval_every=2,
        eval_suite=("libero_goal",),
        eval_tasks=("7",),
        eval_episodes=1,
        eval_workers="1",
        execute_steps=16,
    )
    prepare_training(arguments, say=said.append, on_progress=lambda progress: None).run()
    log = (tmp_path / "run" / "evaluations" / "000002.log").read_text()
    assert any(text.startswith("evaluation of step 2: libero_goal 0/1 = 0.0%") for text in said), log
    assert list((tmp_path / "run" / "evaluations").rglob("*.mp4")), log


def test_wrong_flags_are_refused_at_once(tmp_path: Path, language_model: Path) -> None:
    with pytest.raises(ValueError, match="--best-by success need evaluations: say --eval-every N"):
        train_arguments(tmp_path, language_model, best_by="success")
    with pytest.raises(ValueError, match=r"unknown suite 'libero_goat'\. Did you mean 'libero_goal'"):
        train_arguments(tmp_path, language_model, eval_every=1, eval_suite=("libero_goat",))
    with pytest.raises(ValueError, match="--eval-workers: expected auto, half or a number, got 'two'"):
        train_arguments(tmp_path, language_model, eval_every=1, eval_workers="two")
    for wrong, message in (
        ({"eval_tasks": ("99",)}, "99"),
        ({"eval_episodes": 51}, "--eval-episodes: expected at most 50, as many as init states, got 51"),
    ):
        arguments = train_arguments(tmp_path, language_model, eval_every=1, eval_suite=("libero_goal",), **wrong)
        with pytest.raises(ValueError, match=message):
            prepare_training(arguments, say=print, on_progress=lambda progress: None)
    arguments = train_arguments(tmp_path, language_model, eval_every=1)
    with pytest.raises(ValueError, match="these demonstrations are of no LIBERO suite; name one with --eval-suite"):
        prepare_training(arguments, say=print, on_progress=lambda progress: None)

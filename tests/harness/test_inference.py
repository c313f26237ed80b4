"""The policy's thread: order, faults, and that nobody waits for it who need not."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from harness.rollout.batcher import ExplainedPolicyError
from harness.rollout.inference import Answers, Inference, PolicyFailure
from tasks.interface import ActionChunk, EpisodeSpec, Observation, OpenLoopSpec, PolicyNeeds
from tests.examples import episode, observation


class Recorder:
    """Writes down what it is told; computes when let."""

    needs = PolicyNeeds(cameras=(), image_convention=None, batch_size=2, ensemble=OpenLoopSpec())

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.threads: set[str] = set()
        self.may_compute = threading.Event()
        self.may_compute.set()
        self.error: BaseException | None = None

    def start(self, specs: Sequence[EpisodeSpec]) -> None:
        self._note(f"start {specs[0].episode_id}")

    def finish(self, episode_ids: Sequence[str]) -> None:
        self._note(f"finish {episode_ids[0]}")

    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        self.may_compute.wait(10)
        self._note(f"act {observations[0].step}")
        return [ActionChunk(actions=np.full((3, 7), o.step / 10)) for o in observations]

    def _note(self, what: str) -> None:
        self.threads.add(threading.current_thread().name)
        self.calls.append(what)
        if self.error is not None:
            raise self.error


def answers(inference: Inference) -> list[Answers | PolicyFailure]:
    assert inference.signal.poll(10)
    return inference.results()


def test_calls_are_made_in_order_on_one_thread() -> None:
    policy = Recorder()
    inference = Inference(policy)
    inference.start(episode(0, 0))
    inference.ask([observation(step=1), observation(step=2)])
    inference.finish("libero_spatial/00/00/r0")
    inference.wait()
    (result,) = answers(inference)
    assert isinstance(result, Answers)
    assert [chunk.actions[0, 0] for chunk in result.chunks] == [0.1, 0.2]
    assert policy.calls == ["start libero_spatial/00/00/r0", "act 1", "finish libero_spatial/00/00/r0"]
    assert policy.threads == {"inference"}
    inference.close()


def test_nobody_waits_while_the_policy_computes() -> None:
    policy = Recorder()
    policy.may_compute.clear()
    inference = Inference(policy)
    began = time.monotonic()
    inference.ask([observation(step=1)])
    assert inference.busy
    assert inference.results() == []
    assert time.monotonic() - began < 1
    policy.may_compute.set()
    (result,) = answers(inference)
    assert isinstance(result, Answers)
    assert result.took_s >= 0
    assert not inference.busy
    inference.ask([observation(step=2)])
    assert len(answers(inference)) == 1
    inference.close()


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (ValueError("out of tune"), "ValueError: out of tune"),
        (SystemExit("I leave"), "SystemExit: I leave"),
        (ExplainedPolicyError("the server is gone"), "the server is gone"),
    ],
)
@pytest.mark.parametrize("call", ["start", "act", "finish"])
def test_whatever_a_policy_raises_is_reported(call: str, error: BaseException, detail: str) -> None:
    policy = Recorder()
    policy.error = error
    inference = Inference(policy)
    match call:
        case "start":
            inference.start(episode())
        case "act":
            inference.ask([observation()])
        case "finish":
            inference.finish("libero_spatial/00/00/r0")
    (result,) = answers(inference)
    assert isinstance(result, PolicyFailure)
    assert detail in result.detail
    if isinstance(error, ExplainedPolicyError):
        assert result.detail == detail
    inference.close()


def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.rollout.inference.GOODBYE_S", 0.2)
    policy = Recorder()
    policy.may_compute.clear()
    inference = Inference(policy)
    inference.ask([observation()])
    began = time.monotonic()
    inference.close()
    assert time.monotonic() - began < 5
    policy.may_compute.set()

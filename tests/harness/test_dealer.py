from __future__ import annotations

from harness.rollout.dealer import Dealer
from tests.examples import episode


def test_a_worker_stays_on_its_task() -> None:
    dealer = Dealer([episode(t, i) for i in range(3) for t in (0, 1)])
    task, dealt = "", []
    while dealer:
        job = dealer.deal(task, [])
        assert job is not None
        task = job.task
        dealt.append(job.spec.episode_id)
    assert dealt == [f"libero_spatial/0{t}/0{i}/r0" for t in (0, 1) for i in range(3)]


def test_workers_take_different_tasks_and_then_help() -> None:
    dealer = Dealer([episode(t, i) for t in (0, 1) for i in range(4)])
    first = dealer.deal("", [])
    assert first is not None
    second = dealer.deal("", [first.task])
    assert second is not None
    assert first.task != second.task
    for _ in range(3):
        assert dealer.deal(second.task, [first.task]) is not None
    helper = dealer.deal(second.task, [first.task])
    assert helper is not None
    assert helper.task == first.task


def test_an_episode_put_back_comes_next_with_another_attempt() -> None:
    dealer = Dealer([episode(0, i) for i in range(2)])
    job = dealer.deal("", [])
    assert job is not None
    dealer.put_back(job)
    again = dealer.deal(job.task, [])
    assert again is not None
    assert (again.spec, again.attempt) == (job.spec, 2)


def test_nothing_left() -> None:
    dealer = Dealer([episode()])
    assert dealer
    dealer.deal("", [])
    assert not dealer
    assert dealer.deal("", []) is None

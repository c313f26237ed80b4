from __future__ import annotations

from harness.rollout.dealer import Dealer
from tasks.interface import Official
from tasks.plan import make_episode
from tasks.protocols import openvla
from tasks.suites import load_suite
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


def test_the_task_with_the_most_steps_left_comes_first() -> None:
    long, short = load_suite("libero_10")[0], load_suite("libero_spatial")[0]
    specs = [make_episode(task, Official(index=i), openvla()) for task, n in ((short, 3), (long, 2)) for i in range(n)]
    dealer = Dealer(specs)  # 3 × 220 steps against 2 × 520
    first = dealer.deal("", [])
    assert first is not None
    assert first.task == str(long)
    second = dealer.deal("", [first.task])
    assert second is not None
    assert second.task == str(short), "a task without a worker comes before one with"
    third = dealer.deal("", [first.task, second.task])
    assert third is not None
    assert third.task == str(long), "one episode of 520 steps for two workers; two of 220 would be less for each"

from __future__ import annotations

import time
from pathlib import Path

import pytest
from rich.console import Console

from results.run_log import LogEvent, RunLog
from results.table import print_incidents


def test_events_come_back(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    assert log.events() == []
    log.write("worker_replaced", episode_id="a", why="killed\nby SIGKILL")
    (event,) = log.events()
    assert (event.event, event.details) == ("worker_replaced", {"episode_id": "a", "why": "killed\nby SIGKILL"})


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write("session_started")
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write('{"utc": "20')
    assert [event.event for event in log.events()] == ["session_started"]


def test_the_duration_leaves_out_the_time_between_sessions(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for at_s, event in ((0.0, "session_started"), (10.0, "session_ended"), (100.0, "session_started")):
        log.write(event, at_s=at_s)
    log.close_killed_session(last_sign_s=107.0)
    log.write("session_started", at_s=1000.0)
    log.write("session_ended", at_s=1001.0)
    assert log.wall_s() == pytest.approx(10 + 7 + 1)
    assert [event.event for event in log.events()].count("session_killed") == 1


def test_a_session_that_ended_was_not_killed(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write("session_started", at_s=0.0)
    log.write("session_ended", at_s=1.0)
    log.close_killed_session(last_sign_s=time.time())
    assert len(log.events()) == 2


def test_the_user_is_told_what_happened() -> None:
    names = ["session_started", "worker_replaced", "worker_replaced", "session_killed", "session_started"]
    console = Console(width=200, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    print_incidents(console, [LogEvent(utc="", event=name, details={}) for name in names])
    assert console.export_text().strip() == (
        "On the way: resumed once; killed from outside once; a worker died or stalled and was replaced 2 times. "
        "Details: log.jsonl"
    )


def test_nothing_is_said_of_nothing() -> None:
    console = Console(width=200, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    print_incidents(console, [LogEvent(utc="", event="session_started", details={})])
    assert console.export_text() == ""

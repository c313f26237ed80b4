"""Progress of a run: success so far, episodes per minute, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tasks.interface import EpisodeRecord, Outcome

LINE_EVERY_S = 15.0
"""Without a terminal a line is printed this often, and at the end."""


class RunProgress:
    """A bar on a terminal, a line now and then elsewhere; a context manager.

    Args:
        console: where to print.
        total: episodes of the run.
        earlier: those that an earlier session finished.
    """

    def __init__(self, console: Console, total: int, earlier: Sequence[EpisodeRecord] = ()) -> None:
        self._console = console
        self._total = total
        self._earlier = len(earlier)
        self._done = len(earlier)
        self._successes = sum(record.outcome is Outcome.SUCCESS for record in earlier)
        self._errors = sum(record.outcome is Outcome.ERROR for record in earlier)
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("episodes", total=total, completed=self._done, rates="starting workers")

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def add(self, record: EpisodeRecord) -> None:
        """Count one finished episode."""
        self._done += 1
        self._successes += record.outcome is Outcome.SUCCESS
        self._errors += record.outcome is Outcome.ERROR
        self._bar.update(self._task, advance=1, rates=self.rates())
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._last_line > LINE_EVERY_S or self._done == self._total):
            self._last_line = now
            self._console.print(f"{self._done}/{self._total} episodes, {self.rates()}", highlight=False)

    def expect(self, more: int) -> None:
        """The run has that many episodes more than was thought."""
        self._total += more
        self._bar.update(self._task, total=self._total)

    def rates(self) -> str:
        """Success so far, pace and time left."""
        minutes = (time.monotonic() - self._started) / 60
        new = self._done - self._earlier
        per_minute = new / minutes if minutes > 0 else 0.0
        finished = self._done - self._errors
        success = f"success {self._successes}/{finished}" + (
            f" ({100 * self._successes / finished:.0f} %)" if finished else ""
        )
        errors = f", {self._errors} errors" if self._errors else ""
        left = f", {_clock((self._total - self._done) / per_minute)} left" if new and self._done < self._total else ""
        return f"{success}{errors}, {per_minute:.1f} episodes/min{left}"


def _clock(minutes: float) -> str:
    seconds = round(minutes * 60)
    return (
        f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        if seconds >= 3600
        else f"{seconds // 60}:{seconds % 60:02d}"
    )

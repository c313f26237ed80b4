"""What happened in a run besides its episodes: sessions, replaced workers, repeated episodes. One JSON object per line."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.files import append_line


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """One line of `log.jsonl`."""

    utc: str
    """ISO 8601."""
    event: str
    """`session_started`, `session_ended`, `session_killed`, `worker_replaced`, `episode_repeated`, `episode_error`,
    `video_failed` or `merged`."""
    details: Mapping[str, Any]


class RunLog:
    """Appends to `log.jsonl`.

    Args:
        folder: the run directory.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "log.jsonl"

    def write(self, event: str, *, at_s: float | None = None, **details: Any) -> None:
        """Append one line.

        Args:
            at_s: when it happened, in seconds since the epoch; None: now.

        Raises:
            OSError: it cannot be written.
        """
        when = datetime.datetime.fromtimestamp(time.time() if at_s is None else at_s, datetime.UTC)
        utc = when.isoformat(timespec="milliseconds")
        append_line(self.file, json.dumps({"utc": utc, "event": event, **details}, default=str))

    def events(self) -> list[LogEvent]:
        """Everything logged so far; a line that a kill cut short is left out."""
        if not self.file.is_file():
            return []
        events = []
        for line in self.file.read_text(errors="replace").splitlines():
            try:
                content = json.loads(line)
                events.append(LogEvent(utc=content.pop("utc"), event=content.pop("event"), details=content))
            except (ValueError, KeyError, AttributeError):
                continue
        return events

    def close_killed_session(self, last_sign_s: float) -> None:
        """If the last session has no end, it was killed: say so.

        Args:
            last_sign_s: when it was last known to work, in seconds since the epoch.
        """
        marks = [event for event in self.events() if event.event.startswith("session_")]
        if marks and marks[-1].event == "session_started":
            started_s = datetime.datetime.fromisoformat(marks[-1].utc).timestamp()
            self.write("session_killed", at_s=max(started_s, last_sign_s))

    def wall_s(self) -> float:
        """Duration of all ended sessions together [s], those of merged shards included; a killed one counts up to its last
        finished episode."""
        total, started = 0.0, ""
        for event in self.events():
            if event.event == "merged":
                total += float(event.details.get("wall_s", 0.0))
            if event.event == "session_started":
                started = event.utc
            elif started and event.event in ("session_ended", "session_killed"):
                total += _seconds_between(started, event.utc)
                started = ""
        return total


def _seconds_between(start_utc: str, end_utc: str) -> float:
    parse = datetime.datetime.fromisoformat
    return (parse(end_utc) - parse(start_utc)).total_seconds()

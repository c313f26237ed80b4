"""Episode records as lines of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.interface import (
    EpisodeRecord,
    EpisodeSpec,
    InitState,
    Official,
    Outcome,
    Recorded,
    Sampled,
    TaskSpec,
    TimeSpent,
)

_INIT_KINDS: dict[str, type[InitState]] = {"official": Official, "sampled": Sampled, "recorded": Recorded}


class RecordError(ValueError):
    """A line is not an episode record."""


def to_json(record: EpisodeRecord) -> str:
    """One line, without a newline. Which videos there are is read off the folder, not written down."""
    content = asdict(record)
    del content["video"]
    kind = next(name for name, cls in _INIT_KINDS.items() if isinstance(record.spec.init, cls))
    content["spec"]["init"] = {"kind": kind, **content["spec"]["init"]}
    return json.dumps(content, default=str)


def from_json(line: str) -> EpisodeRecord:
    """The record a line holds.

    Raises:
        RecordError: it holds none.
    """
    try:
        content: dict[str, Any] = json.loads(line)
        spec = content["spec"]
        task, init = spec["task"], dict(spec["init"])
        for key in ("bddl_file", "init_states_file"):
            task[key] = Path(task[key])
        if "file" in init:
            init["file"] = Path(init["file"])
        return EpisodeRecord(
            **{
                **content,
                "video": "",
                "spec": EpisodeSpec(
                    **{**spec, "task": TaskSpec(**task), "init": _INIT_KINDS[init.pop("kind")](**init)}
                ),
                "outcome": Outcome(content["outcome"]),
                "time_spent": TimeSpent(**content["time_spent"]),
            }
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"not an episode record ({type(error).__name__}: {error}): {line[:200]!r}") from error

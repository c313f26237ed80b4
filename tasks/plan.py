"""The plan: which episodes are run. It is fixed, ids and all, before anything runs."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.interface import EpisodeSpec, InitState, Official, Recorded, Sampled, TaskSpec
from tasks.protocols import Protocol
from tasks.suites import UnknownTaskError


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Episodes in their canonical order."""

    protocol: Protocol
    episodes: tuple[EpisodeSpec, ...]

    @property
    def sha256(self) -> str:
        """A hash of the protocol and of every episode's identity; equal plans are comparable episode by episode."""
        content = {
            "protocol": [self.protocol.name, *(str(getattr(self.protocol, f)) for f in sorted(Protocol.__slots__))],
            "episodes": [[e.episode_id, e.task.name, str(e.init)] for e in self.episodes],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def only(self, episode_ids: Sequence[str]) -> Plan:
        """The plan reduced to the named episodes.

        Raises:
            UnknownTaskError: an id is not in the plan.
        """
        known = {episode.episode_id for episode in self.episodes}
        for wanted in episode_ids:
            if wanted not in known:
                near = difflib.get_close_matches(wanted, known, n=1)
                raise UnknownTaskError(
                    f"episode {wanted!r} is not in the plan of {len(known)} episodes"
                    + (f"; the nearest is {near[0]!r}." if near else ".")
                    + " An id is SUITE/TASK/INIT/rREPEAT, such as libero_spatial/03/07/r0; check --suite, --tasks and --episodes."
                )
        return Plan(
            protocol=self.protocol,
            episodes=tuple(e for e in self.episodes if e.episode_id in set(episode_ids)),
        )


def init_label(init: InitState) -> str:
    """The part of an episode's id that names its init state."""
    match init:
        case Official():
            return f"{init.index:02d}"
        case Sampled():
            return f"s{init.seed}"
        case Recorded():
            return f"{init.file.stem}.{init.demo}"


def make_episode(task: TaskSpec, init: InitState, protocol: Protocol, repeat: int = 0) -> EpisodeSpec:
    """One episode with its canonical id."""
    return EpisodeSpec(
        episode_id=f"{task.suite}/{task.index:02d}/{init_label(init)}/r{repeat}",
        task=task,
        init=init,
        repeat=repeat,
        protocol=protocol.name,
    )


def plan_official(tasks: Iterable[TaskSpec], protocol: Protocol, *, episodes: int | None = None) -> Plan:
    """The first `episodes` official init states of every task (None: as many as the protocol says).

    Raises:
        ValueError: a task has fewer init states, or the count is below one.
    """
    wanted = protocol.episodes_per_task if episodes is None else episodes
    if wanted < 1:
        raise ValueError(f"expected at least one episode per task, got {wanted}")
    specs: list[EpisodeSpec] = []
    for task in tasks:
        if wanted > task.num_init_states:
            raise ValueError(
                f"{task} has {task.num_init_states} official init states, {wanted} episodes were asked for; "
                f"--episodes {task.num_init_states} runs them all"
            )
        specs += [make_episode(task, Official(index=index), protocol) for index in range(wanted)]
    return Plan(protocol=protocol, episodes=tuple(specs))

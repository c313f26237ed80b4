"""Which demonstration files to learn from, and what task and instruction each of them has."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tasks.bddl import Predicate, parse_problem, read_problem
from tasks.demonstrations.decoded_set import META, is_decoded_set, read_decoded_set
from tasks.demonstrations.hdf5 import DemonstrationError, DemonstrationFile
from tasks.demonstrations.lerobot import INFO, LeRobotDataset, is_lerobot_dataset
from tasks.interface import TaskSpec
from tasks.suites import SUITES, load_suite

GROUPS: dict[str, frozenset[str]] = {"pick_and_place": frozenset({"on", "in"})}
"""Groups of tasks: name → the predicates their goals are made of, and of nothing else."""
PromptSource = Literal["file_name", "recorded"]


class UnnamedTaskWarning(UserWarning):
    """A file does not say what task it shows; the user's word for it is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationSource:
    """One task's demonstrations in one file."""

    file: Path
    """HDF5, or the folder of a decoded set or a LeRobot dataset."""
    task: str
    """LIBERO's name of the task, or the user's."""
    suite: str
    """The LIBERO suite the task belongs to; empty for none."""
    instruction: str
    recorded: str = ""
    """The instruction in the file's own words; empty where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """What a file says of its task, or a set of demonstrations of one of its tasks."""

    file: Path
    task: str
    """Empty where neither the file nor its name says."""
    suite: str
    instruction: str
    recorded: str
    goal: tuple[Predicate, ...]

    def answers_to(self, name: str) -> bool:
        if name in GROUPS:
            return bool(self.goal) and {predicate[0] for predicate in self.goal} <= GROUPS[name]
        texts = (self.task, self.file.stem, self.instruction)
        return any(_plain(name) in _plain(text) for text in texts)

    def __str__(self) -> str:
        return f"{self.file}: {self.task or 'task unknown'}, {self.instruction or 'no instruction'}"


def find_files(paths: Sequence[Path]) -> list[Path]:
    """What can be learnt from among `paths` and in the folders among them, sorted within each folder.

    That is HDF5 files, decoded sets and LeRobot datasets.

    Raises:
        DemonstrationError: a path leads to none, or to several kinds, which may be the same demonstrations twice.
    """
    files: list[Path] = []
    for path in paths:
        found = _in_folder(path) if path.is_dir() else [path]
        if not found or not found[0].exists():
            raise DemonstrationError(
                f"expected an HDF5 file, a decoded set, a LeRobot dataset, or a folder of them at {path}, there is none"
            )
        files += found
    return list(dict.fromkeys(files))


def _in_folder(folder: Path) -> list[Path]:
    if is_decoded_set(folder) or is_lerobot_dataset(folder):
        return [folder]
    inside = sorted(path for path in folder.rglob("*") if not _is_hidden(path.relative_to(folder)))
    kinds = {
        "HDF5 files": [p for p in inside if p.suffix in (".hdf5", ".h5")],
        "decoded sets": [p.parent for p in inside if p.name == META and is_decoded_set(p.parent)],
        "LeRobot datasets": [p.parents[1] for p in inside if p.match(INFO) and is_lerobot_dataset(p.parents[1])],
    }
    found = {kind: paths for kind, paths in kinds.items() if paths}
    if len(found) > 1:
        listing = " and ".join(f"{kind} ({paths[0].relative_to(folder)}, …)" for kind, paths in found.items())
        raise DemonstrationError(
            f"{folder} holds {listing}, perhaps of the same demonstrations. Name the ones to learn from."
        )
    return next(iter(found.values()), [])


def _is_hidden(path: Path) -> bool:
    """Whether something is half made, or an editor's."""
    return any(part.startswith(".") for part in path.parts)


def select_demonstrations(
    paths: Sequence[Path], task_names: Sequence[str], prompt_source: PromptSource
) -> list[DemonstrationSource]:
    """The files whose task answers to one of `task_names`; all without names.

    A name is a group (`GROUPS`), or matches where it is part of the task's name, the file's name or the instruction.
    A file that says nothing of its task counts as the one task that `task_names` names, with a warning.

    Args:
        prompt_source: whose words a LIBERO task's instruction is: the task's file name's, as evaluation protocols have it,
            or those recorded in the demonstration file (the BDDL's).

    Raises:
        DemonstrationError: a name matches nothing, or a file has no instruction and none is given; the message lists what there is.
    """
    candidates = [candidate for file in find_files(paths) for candidate in _read(file, prompt_source)]
    matched = {name: [c for c in candidates if c.answers_to(name)] for name in task_names}
    nameless = [c for c in candidates if not c.instruction]
    if not task_names and nameless:
        raise DemonstrationError(
            f"{nameless[0].file}: no instruction in it (attributes problem_info, bddl_file_name), and its name is no LIBERO "
            "task's. Say what it shows: --task-names 'lift the cube'"
        )
    if len(task_names) == 1 and not any(c.instruction for c in matched[task_names[0]]) and nameless:
        return [_named_by_user(c, task_names[0]) for c in nameless]
    unmatched = [name for name, found in matched.items() if not found]
    if unmatched:
        listing = "\n".join(f"  {candidate}" for candidate in candidates)
        raise DemonstrationError(
            f"--task-names {unmatched[0]} matches no task. Groups: {', '.join(GROUPS)}. There is:\n{listing}"
        )
    chosen = candidates if not task_names else [c for c in candidates if any(c in found for found in matched.values())]
    return [
        DemonstrationSource(file=c.file, task=c.task, suite=c.suite, instruction=c.instruction, recorded=c.recorded)
        for c in chosen
        if c.instruction
    ]


def _named_by_user(candidate: _Candidate, name: str) -> DemonstrationSource:
    instruction = name.replace("_", " ").strip()
    warnings.warn(
        f"{candidate.file} does not say what task it shows: taken as one task, {instruction!r}",
        UnnamedTaskWarning,
        stacklevel=3,
    )
    return DemonstrationSource(file=candidate.file, task=name, suite="", instruction=instruction)


def _read(file: Path, prompt_source: PromptSource) -> list[_Candidate]:
    if is_decoded_set(file):
        said = dict.fromkeys((e.task, e.suite, e.instruction) for e in read_decoded_set(file).episodes)
        return [
            replace(_candidate(file, _find_task(task, suite), recorded, prompt_source), task=task, suite=suite)
            for task, suite, recorded in said
        ]
    if is_lerobot_dataset(file):
        texts = LeRobotDataset(file).instructions
        return [
            _candidate(file, task, text, prompt_source)
            for text, task in zip(texts, _tasks_of_instructions(texts), strict=True)
        ]
    with DemonstrationFile(file) as demonstrations:
        bddl_file = Path(demonstrations.bddl_file_name)
        recorded, content = demonstrations.instruction, demonstrations.attributes.get("bddl_file_content", "")
    task = _find_task(bddl_file.stem or file.stem.removesuffix("_demo"), bddl_file.parent.name)
    found = _candidate(file, task, recorded, prompt_source)
    if task is not None:
        return [found]
    goal = parse_problem(str(content), f"{file}: bddl_file_content").goal if content else ()
    return [replace(found, task=bddl_file.stem, goal=goal)]


def _candidate(file: Path, task: TaskSpec | None, recorded: str, prompt_source: PromptSource) -> _Candidate:
    """With the words wanted for LIBERO's task; without one, with those in the file."""
    if task is None:
        name = recorded.replace(" ", "_")
        return _Candidate(file=file, task=name, suite="", instruction=recorded, recorded=recorded, goal=())
    from_task = task.instruction_file_name if prompt_source == "file_name" else recorded or task.instruction_bddl
    return _Candidate(
        file=file,
        task=task.name,
        suite=task.suite,
        instruction=from_task,
        recorded=recorded,
        goal=read_problem(task.bddl_file).goal,
    )


def _find_task(name: str, folder: str) -> TaskSpec | None:
    """LIBERO's task of that name, in the suite called `folder` if that has it, else in the first that does."""
    suites = sorted(SUITES, key=lambda suite: suite != folder)
    return next((task for suite in suites for task in load_suite(suite) if task.name == name), None)


def _tasks_of_instructions(texts: Sequence[str]) -> list[TaskSpec | None]:
    """LIBERO's tasks with these instructions, in the words of their files' names or of their BDDL files.

    Where several suites have one of that instruction, it is of the suite that has most of them.
    """
    found: dict[str, dict[str, TaskSpec]] = {suite: {} for suite in SUITES}
    for suite, tasks in found.items():
        for task in load_suite(suite):
            tasks.setdefault(_plain(task.instruction_bddl).strip(), task)
        for task in load_suite(suite):
            tasks[_plain(task.instruction_file_name).strip()] = task
    wanted = [_plain(text).strip() for text in texts]
    suites = sorted(found, key=lambda suite: -len(found[suite].keys() & set(wanted)))  # stable: the first of equal ones
    return [next((found[suite][text] for suite in suites if text in found[suite]), None) for text in wanted]


def _plain(text: str) -> str:
    return text.lower().replace("_", " ")

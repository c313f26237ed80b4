"""Which files `--task-names` takes, and what their instruction is."""

from __future__ import annotations

import warnings
from pathlib import Path

import h5py
import pytest

from tasks.demonstrations import DemonstrationError, DemonstrationSource, UnnamedTaskWarning, select_demonstrations
from tasks.suites import load_suite
from tests.lift import LIFT, write_libero

SOUP = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
DRAWER = "open_the_middle_drawer_of_the_cabinet"
BOWL = "pick_up_the_black_bowl_between_the_plate_and_the_ramekin_and_place_it_on_the_plate"


def folder_of_three(tmp_path: Path) -> Path:
    write_libero(tmp_path / "soup_demo.hdf5", task=SOUP, instruction="pick the alphabet soup", demos=["demo_0"])
    write_libero(tmp_path / f"{DRAWER}_demo.hdf5", demos=["demo_0"])  # as the no-noops files are: its name says all
    write_libero(tmp_path / "other.hdf5", task="wave", instruction="wave at the camera", demos=["demo_0"])
    return tmp_path


def tasks(sources: list[DemonstrationSource]) -> list[str]:
    return sorted(source.task for source in sources)


def test_without_names_every_file_counts(tmp_path: Path) -> None:
    sources = select_demonstrations([folder_of_three(tmp_path)], [], "file_name")
    assert tasks(sources) == sorted([SOUP, DRAWER, "wave"])
    assert {s.task: s.suite for s in sources} == {SOUP: "libero_object", DRAWER: "libero_goal", "wave": ""}


def test_prompts_are_the_protocols_or_the_recorders(tmp_path: Path) -> None:
    folder = folder_of_three(tmp_path)
    by_file_name = {s.task: s.instruction for s in select_demonstrations([folder], [], "file_name")}
    recorded = {s.task: s.instruction for s in select_demonstrations([folder], [], "recorded")}
    assert by_file_name[SOUP] == "pick up the alphabet soup and place it in the basket"
    assert recorded[SOUP] == "pick the alphabet soup"
    assert recorded[DRAWER] == next(t for t in load_suite("libero_goal") if t.name == DRAWER).instruction_bddl
    assert by_file_name["wave"] == recorded["wave"] == "wave at the camera"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["pick_and_place"], [SOUP]),
        (["alphabet soup"], [SOUP]),
        (["Middle_Drawer"], [DRAWER]),
        (["soup_demo"], [SOUP]),
        (["wave at"], ["wave"]),
        (["drawer", "pick_and_place"], [DRAWER, SOUP]),
    ],
)
def test_groups_and_matches(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    assert tasks(select_demonstrations([folder_of_three(tmp_path)], names, "file_name")) == sorted(expected)


def test_the_group_holds_goals_of_on_and_in_only() -> None:
    from tasks.demonstrations.selection import _Candidate

    def in_group(*goal: tuple[str, ...]) -> bool:
        candidate = _Candidate(file=Path("a"), task="t", suite="", instruction="i", recorded="i", goal=goal)
        return candidate.answers_to("pick_and_place")

    assert in_group(("on", "a", "b"), ("in", "c", "d"))
    assert not in_group(("in", "a", "b"), ("close", "c"))
    assert not in_group()


def test_nothing_matched_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        DemonstrationError,
        match=r"--task-names juggle matches no task\. Groups: pick_and_place\. There is:(.|\n)*wave at the camera",
    ):
        select_demonstrations([folder_of_three(tmp_path)], ["drawer", "juggle"], "file_name")


def test_a_file_without_a_task_is_the_one_the_user_names() -> None:
    with pytest.warns(
        UnnamedTaskWarning, match=r"lift\.hdf5 does not say what task it shows: taken as one task, 'pick and place'"
    ):
        (source,) = select_demonstrations([LIFT], ["pick_and_place"], "file_name")
    assert (source.task, source.suite, source.instruction) == ("pick_and_place", "", "pick and place")


def test_a_file_without_an_instruction_needs_one() -> None:
    with pytest.raises(DemonstrationError, match=r"lift\.hdf5: no instruction in it .* --task-names 'lift the cube'"):
        select_demonstrations([LIFT], [], "file_name")


def test_a_nameless_file_beside_one_that_matches_is_left_out(tmp_path: Path) -> None:
    folder = folder_of_three(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tasks(select_demonstrations([folder, LIFT], ["alphabet soup"], "file_name")) == [SOUP]


def test_the_suite_is_the_recorders(tmp_path: Path) -> None:
    write_libero(tmp_path / "a.hdf5", task=BOWL, suite="libero_spatial_lan", instruction="x", demos=["demo_0"])
    (source,) = select_demonstrations([tmp_path], [], "file_name")
    assert source.suite == "libero_spatial_lan"


def test_an_instruction_in_letters_is_joined(tmp_path: Path) -> None:
    import json

    write_libero(tmp_path / "a.hdf5", task="wave", demos=["demo_0"])
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": list('"wave twice"')})
    (source,) = select_demonstrations([tmp_path], [], "file_name")
    assert source.instruction == "wave twice"


def test_an_instruction_is_of_the_suite_that_has_most_of_a_sets() -> None:
    from tasks.demonstrations.selection import _tasks_of_instructions

    stove = "turn on the stove"
    assert [str(task) for task in _tasks_of_instructions([stove])] == ["libero_goal/07"]
    all_90 = list(dict.fromkeys(task.instruction_file_name for task in load_suite("libero_90")))
    assert {task.suite for task in _tasks_of_instructions(all_90) if task} == {"libero_90"}
    lift, bowl = _tasks_of_instructions(["lift the cube", load_suite("libero_spatial")[3].instruction_bddl.upper()])
    assert lift is None
    assert str(bowl) == "libero_spatial/03"


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.hdf5"):
        with pytest.raises(
            DemonstrationError, match="an HDF5 file, a decoded set, a LeRobot dataset, or a folder of them at"
        ):
            select_demonstrations([path], [], "file_name")

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import libero_files
from tasks.bddl import BddlError, read_problem
from tasks.suites import SUITES, load_suite


def test_a_real_problem() -> None:
    problem = read_problem(load_suite("libero_spatial")[0].bddl_file)
    assert problem.name == "libero_tabletop_manipulation"
    assert (
        problem.instruction == "pick the akita black bowl between the plate and the ramekin and place it on the plate"
    )
    assert problem.goal == (("on", "akita_black_bowl_1", "plate_1"),)
    assert problem.objects["akita_black_bowl_2"] == "akita_black_bowl"
    assert problem.fixtures == {
        "main_table": "table",
        "wooden_cabinet_1": "wooden_cabinet",
        "flat_stove_1": "flat_stove",
    }
    assert ("on", "plate_1", "main_table_plate_region") in problem.initial


def test_a_conjunction() -> None:
    problem = read_problem(load_suite("libero_10")[3].bddl_file)
    assert {predicate[0] for predicate in problem.goal} == {"in", "close"}


@pytest.mark.sim
@pytest.mark.parametrize("suite", ["libero_spatial", "libero_10", "libero_goal_task"])
def test_equals_liberos_own_parser(suite: str) -> None:
    from libero.libero.envs import bddl_utils

    from harness.sim import stack  # noqa: F401

    for task in load_suite(suite):
        ours, theirs = read_problem(task.bddl_file), bddl_utils.robosuite_parse_problem(str(task.bddl_file))
        assert ours.name == theirs["problem_name"]
        assert ours.instruction == " ".join(theirs["language_instruction"])
        assert [list(p) for p in ours.goal] == theirs["goal_state"]
        assert [list(p) for p in ours.initial] == theirs["initial_state"]
        assert ours.objects == {name: kind for kind, names in theirs["objects"].items() for name in names}
        assert ours.fixtures == {name: kind for kind, names in theirs["fixtures"].items() for name in names}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(define (problem x)", "expected one balanced expression"),
        ("(define (problem x)))", "a closing parenthesis without an opening one"),
        ("(other)", "expected `.define"),
        ("(define (problem x))", ":language"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "broken.bddl"
    file.write_text(text)
    with pytest.raises(BddlError, match=message) as raised:
        read_problem(file)
    assert str(file) in str(raised.value)


def test_every_suite_parses() -> None:
    assert libero_files.bddl_root().is_dir()
    for suite in SUITES:
        for task in load_suite(suite):
            assert read_problem(task.bddl_file).goal

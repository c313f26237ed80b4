from __future__ import annotations

import pytest

from tasks.suites import SUITES, UnknownTaskError, find_suite, instruction_from_file_name, load_suite, select_tasks


def test_the_table_has_twenty_one_suites() -> None:
    assert len(SUITES) == 21
    assert [suite.num_tasks for suite in list(SUITES.values())[:5]] == [10, 10, 10, 10, 90]
    assert SUITES["libero_10_swap"].base == "libero_10"


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_loads(name: str) -> None:
    tasks = load_suite(name)
    assert [task.index for task in tasks] == list(range(SUITES[name].num_tasks))
    assert all(task.num_init_states == 50 for task in tasks)


def test_only_the_bddl_carries_the_change_of_lan_and_task() -> None:
    for name, suite in SUITES.items():
        base, changed = load_suite(suite.base), load_suite(name)
        if suite.prompt_from_bddl:
            pairs = zip(base, changed, strict=True)
            assert any(a.instruction_bddl != b.instruction_bddl for a, b in pairs), name
            assert [a.name for a in base] == [b.name for b in changed], name


def test_prompts_of_file_name_and_bddl_differ_on_twenty_five_of_the_forty_main_tasks() -> None:
    """Thirty before LIBERO's parser lower-cases the BDDL's."""
    main = [
        task for name in ("libero_spatial", "libero_object", "libero_goal", "libero_10") for task in load_suite(name)
    ]
    assert sum(task.instruction_file_name != task.instruction_bddl for task in main) == 25


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("pick_up_the_milk_and_place_it_in_the_basket", "pick up the milk and place it in the basket"),
        ("KITCHEN_SCENE10_close_the_top_drawer", "close the top drawer"),
        ("LIVING_ROOM_SCENE2_put_both", "put both"),
    ],
)
def test_instructions(name: str, instruction: str) -> None:
    assert instruction_from_file_name(name) == instruction


@pytest.mark.sim
def test_instructions_equal_liberos() -> None:
    from libero.libero.benchmark import grab_language_from_filename

    from harness.sim import stack  # noqa: F401

    for suite in SUITES:
        for task in load_suite(suite):
            assert task.instruction_file_name == grab_language_from_filename(f"{task.name}.bddl")


def test_an_unknown_suite_names_the_nearest_and_all() -> None:
    with pytest.raises(
        UnknownTaskError, match=r"unknown suite 'libero_spatal'\. Did you mean 'libero_spatial'\?"
    ) as raised:
        find_suite("libero_spatal")
    assert all(name in str(raised.value) for name in SUITES)


def test_tasks_by_index_and_name_in_the_suites_order() -> None:
    name = load_suite("libero_goal")[2].name
    assert [task.index for task in select_tasks("libero_goal", ["7", name])] == [2, 7]


@pytest.mark.parametrize("key", ["10", "-1", "no_such_task"])
def test_an_unknown_task_lists_the_suites(key: str) -> None:
    with pytest.raises(UnknownTaskError, match=f"unknown task '{key}' of libero_goal") as raised:
        select_tasks("libero_goal", [key])
    assert "7  turn_on_the_stove" in str(raised.value)

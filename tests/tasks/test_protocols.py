from __future__ import annotations

import pytest

from tasks.protocols import PROTOCOLS, find_protocol
from tasks.suites import load_suite


@pytest.mark.parametrize(
    ("name", "horizons"),
    [
        ("openvla", (220, 280, 300, 520, 400)),
        ("openpi", (220, 280, 300, 520, 400)),
        ("lerobot", (280, 280, 300, 520, 400)),
        ("libero", (600, 600, 600, 600, 600)),
    ],
)
def test_horizons(name: str, horizons: tuple[int, ...]) -> None:
    suites = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
    assert tuple(find_protocol(name).horizon(load_suite(suite)[0]) for suite in suites) == horizons


def test_a_perturbed_suite_has_its_bases_horizon() -> None:
    assert find_protocol("openvla").horizon(load_suite("libero_10_swap")[0]) == 520


def test_prompts_come_from_the_file_name_but_for_lan_and_task() -> None:
    for protocol in PROTOCOLS.values():
        for suite, from_bddl in (
            ("libero_spatial", False),
            ("libero_spatial_swap", False),
            ("libero_spatial_lan", True),
            ("libero_goal_task", True),
        ):
            task = load_suite(suite)[0]
            expected = task.instruction_bddl if from_bddl else task.instruction_file_name
            assert protocol.instruction(task) == expected


def test_an_unknown_protocol_lists_the_valid_ones() -> None:
    with pytest.raises(
        ValueError, match="unknown protocol 'openvla-oft'; valid protocols: openvla, openpi, lerobot, libero"
    ):
        find_protocol("openvla-oft")

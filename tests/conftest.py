"""What all tests share. `sim` tests drive the real simulator; they draw in software unless MUJOCO_GL says otherwise."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])

_LONGEST = (
    "test_reproduce.py", "test_equals_stock.py", "test_trainer.py", "test_order.py", "test_processes.py", "test_resume.py",
    "test_evaluations.py", "test_collect.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files go to one of two processes: those that take minutes first, or one would wait for the other at the end."""
    order = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))

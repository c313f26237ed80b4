"""Policies that run inside the worker with privileged state."""

from __future__ import annotations

from collections.abc import Callable

from harness.expert.pick_and_place import PickAndPlaceExpert
from tasks.interface import WorkerPolicy

WORKER_POLICIES: dict[str, Callable[[], WorkerPolicy]] = {"expert": PickAndPlaceExpert}


def make_worker_policy(name: str) -> WorkerPolicy:
    """A fresh worker policy for one episode."""
    return WORKER_POLICIES[name]()

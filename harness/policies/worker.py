"""Policies that run inside the worker with privileged state."""

from __future__ import annotations

import importlib

from tasks.interface import WorkerPolicy

WORKER_POLICIES = {"expert": ("harness.expert.expert", "ScriptedExpert")}
"""Name → module and class. Imported when wanted: scipy's rotations alone take 33 MB, which other workers do without."""


def make_worker_policy(name: str) -> WorkerPolicy:
    """A fresh worker policy for one episode."""
    module, policy = WORKER_POLICIES[name]
    made: WorkerPolicy = getattr(importlib.import_module(module), policy)()
    return made

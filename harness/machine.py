"""How many workers a machine can take."""

from __future__ import annotations

import os
from pathlib import Path

WORKER_BYTES = 2.0 * 2**30
"""Resident memory of one worker with a live environment and a software renderer, rounded up."""
_CGROUP_LIMIT, _CGROUP_USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def available_bytes() -> float:
    """Memory that can be used without swapping, within a container's limit; infinite where it cannot be told."""
    return min(_free_in_machine(), _free_in_container())


def _free_in_container() -> float:
    try:
        return float(_CGROUP_LIMIT.read_text()) - float(_CGROUP_USED.read_text())
    except (OSError, ValueError):  # no such file, or `max`
        return float("inf")


def _free_in_machine() -> float:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    return float("inf")


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_workers(text: str) -> int:
    """The number of workers `--workers` asks for; `auto`: one per core, as far as memory goes.

    Raises:
        ValueError: neither `auto` nor a number from 0 up.
    """
    if text == "auto":
        return max(1, min(usable_cores(), int(available_bytes() // WORKER_BYTES)))
    if not text.isdigit():
        raise ValueError(f"--workers: expected auto or a number from 0 up (0: in this process), got {text!r}")
    return int(text)

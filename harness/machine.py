"""How many workers a machine can take, and leaving it the memory that is not needed."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from pathlib import Path

WORKER_BYTES = 1.0 * 2**30
"""Resident memory of one worker with a live environment and a software renderer, rounded up (scripts/worker_memory.py)."""
WORKERS_PER_CORE_ON_GPU = 1.5
"""A worker that waits for a GPU to draw leaves its core to another (docs/performance.md)."""
_CGROUP_LIMIT, _CGROUP_USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def available_bytes() -> float:
    """Memory that can be used without swapping, within a container's limit; infinite where it cannot be told."""
    return min(_free_in_machine(), _free_in_container())


def return_freed_memory() -> None:
    """Collect what only refers to itself, and give back to the system what is free, which glibc would keep."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


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


SHARES = {"auto": 1.0, "half": 0.5}
"""Words for a number of workers → part of what the machine has room for."""


def check_workers(text: str) -> None:
    """Refuse what `--workers` cannot mean.

    Raises:
        ValueError: neither `auto`, `half` nor a number from 0 up.
    """
    if text not in SHARES and not text.isdigit():
        raise ValueError(f"--workers: expected auto, half or a number from 0 up (0: in this process), got {text!r}")


def count_workers(text: str, *, on_gpu: bool) -> int:
    """The number of workers `--workers` asks for; `auto`: by cores and memory; `half`: half of that.

    Args:
        text: `auto`, `half` or a number.
        on_gpu: whether workers render on a GPU.

    Raises:
        ValueError: neither.
    """
    check_workers(text)
    if text not in SHARES:
        return int(text)
    wanted = usable_cores() * (WORKERS_PER_CORE_ON_GPU if on_gpu else 1.0)
    return max(1, int(SHARES[text] * min(int(wanted), int(available_bytes() // WORKER_BYTES))))

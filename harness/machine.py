"""How many workers a machine can take."""

from __future__ import annotations

import os
from pathlib import Path

WORKER_BYTES = 1.0 * 2**30
"""Resident memory of one worker with a live environment and its renderer, rounded up."""


def available_bytes() -> float:
    """Memory that can be used without swapping; infinite where it cannot be told."""
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

"""Which GPUs draw: the least loaded ones, of one kind, so that workers share them and an image does not depend on the worker.

`python -m harness.sim.gl_devices` prints EGL's devices as JSON: a pair of numbers each, EGL's and CUDA's (-1: not a CUDA device).
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.sim.gl import PROBE_TIMEOUT_S, probe
from harness.sim.subprocess_environment import package_environment

EGL_CUDA_DEVICE_NV = 0x323A
"""https://registry.khronos.org/EGL/extensions/NV/EGL_NV_device_cuda.txt"""
BUSIER_PERCENT = 25
"""A GPU that is busy this much more of the time than the least busy one is left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuLoad:
    """What `nvidia-smi` says of one GPU."""

    busy_percent: int
    """Share of the last moments in which something ran on it."""
    memory_used_mib: int


def choose_devices(renderer: str) -> tuple[int, ...]:
    """EGL's numbers of the devices to draw on, the least loaded first; workers take them in turn.

    Args:
        renderer: what the default device calls itself; all that are chosen do.

    Returns:
        Empty where there is nothing to choose: EGL's default then draws. MUJOCO_EGL_DEVICE_ID decides if it is set, and
        CUDA_VISIBLE_DEVICES limits what is used, as everywhere.
    """
    if os.environ.get("MUJOCO_EGL_DEVICE_ID"):
        return (int(os.environ["MUJOCO_EGL_DEVICE_ID"]),)
    gpus = {cuda: egl for egl, cuda in _egl_devices() if cuda >= 0}
    return select(gpus, _visible(list(gpus)), _loads(), lambda device: probe("egl", device) == (True, renderer))


def select(
    gpus: dict[int, int], visible: Sequence[int], loads: dict[int, GpuLoad], is_alike: Callable[[int], bool]
) -> tuple[int, ...]:
    """The choice itself.

    Args:
        gpus: CUDA's number → EGL's.
        visible: CUDA's numbers of those that may be used.
        loads: CUDA's number → its load; empty where it is not known.
        is_alike: whether an EGL device draws as the default one does; asked only where there is a choice.
    """
    idle = GpuLoad(busy_percent=0, memory_used_mib=0)
    allowed = sorted(
        (number for number in visible if number in gpus),
        key=lambda number: (loads.get(number, idle).busy_percent, loads.get(number, idle).memory_used_mib),
    )
    if len(allowed) <= 1:
        return tuple(gpus[number] for number in allowed)
    alike = [number for number in allowed if is_alike(gpus[number])]
    if not alike:
        return ()
    least = loads.get(alike[0], idle).busy_percent
    return tuple(gpus[n] for n in alike if loads.get(n, idle).busy_percent <= least + BUSIER_PERCENT)


def _visible(numbers: list[int]) -> list[int]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves; all where it is unset or does not give numbers."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return numbers
    parts = [part.strip() for part in given.split(",") if part.strip()]
    return [int(part) for part in parts] if all(part.isdigit() for part in parts) else numbers


def _loads() -> dict[int, GpuLoad]:
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return parse_loads(done.stdout) if done.returncode == 0 else {}


def parse_loads(text: str) -> dict[int, GpuLoad]:
    """CUDA's number → load, from `nvidia-smi`'s lines; GPUs that do not say are left out."""
    loads = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and all(cell.isdigit() for cell in cells):
            loads[int(cells[0])] = GpuLoad(busy_percent=int(cells[1]), memory_used_mib=int(cells[2]))
    return loads


def _egl_devices() -> list[tuple[int, int]]:
    """(EGL's number, CUDA's) of each device, asked for in a process of its own."""
    environment = package_environment() | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # nvidia-smi's order
    environment |= {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "harness.sim.gl_devices"],
            check=True, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env=environment,
        )  # fmt: skip
        return [(int(egl), int(cuda)) for egl, cuda in json.loads(done.stdout)]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def main() -> None:
    """Print the devices."""
    from mujoco.egl import egl_ext

    library = ctypes.CDLL("libEGL.so.1")
    library.eglGetProcAddress.restype = ctypes.c_void_p
    address = library.eglGetProcAddress(b"eglQueryDeviceAttribEXT")
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_ssize_t))(address)
    devices = []
    for number, device in enumerate(egl_ext.eglQueryDevicesEXT()):
        cuda = ctypes.c_ssize_t(-1)
        known = query(ctypes.cast(device, ctypes.c_void_p), EGL_CUDA_DEVICE_NV, ctypes.byref(cuda))
        devices.append((number, cuda.value if known else -1))
    print(json.dumps(devices))
    sys.stdout.flush()
    os._exit(0)  # EGL's exit handlers print errors that mean nothing


if __name__ == "__main__":
    main()

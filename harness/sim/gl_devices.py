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
from dataclasses import dataclass

from harness.sim.gl import PROBE_TIMEOUT_S, is_software, probe
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


def choose_devices(renderer: str) -> tuple[tuple[int, ...], str]:
    """Where workers draw.

    Args:
        renderer: what EGL's default device calls itself.

    Returns:
        EGL's numbers of the devices, the least loaded first; workers take them in turn. None where there is nothing to choose:
        EGL's default then draws. And what all of them call themselves. MUJOCO_EGL_DEVICE_ID decides if it is set;
        CUDA_VISIBLE_DEVICES, if it is a list of numbers, limits the choice unless it leaves nothing.
    """
    if os.environ.get("MUJOCO_EGL_DEVICE_ID"):
        return (int(os.environ["MUJOCO_EGL_DEVICE_ID"]),), renderer
    gpus = {} if is_software(renderer) else {cuda: egl for egl, cuda in _egl_devices() if cuda >= 0}
    if len(gpus) <= 1:
        return tuple(gpus.values()), renderer
    names: dict[int, str] = {}
    for number in _visible(list(gpus)):
        if number in gpus:
            works, name = probe("egl", gpus[number])
            names |= {number: name} if works else {}
    chosen = select(names, _loads())
    return tuple(gpus[number] for number in chosen), names[chosen[0]] if chosen else renderer


def select(names: dict[int, str], loads: dict[int, GpuLoad]) -> tuple[int, ...]:
    """The choice itself: CUDA's numbers.

    Args:
        names: CUDA's number → what it calls itself, of the GPUs that may be used and can draw.
        loads: CUDA's number → its load; those that are not known count as idle.
    """
    idle = GpuLoad(busy_percent=0, memory_used_mib=0)
    by_load = sorted(names, key=lambda n: (loads.get(n, idle).busy_percent, loads.get(n, idle).memory_used_mib, n))
    if not by_load:
        return ()
    most = loads.get(by_load[0], idle).busy_percent + BUSIER_PERCENT
    alike = [number for number in by_load if names[number] == names[by_load[0]]]
    return tuple(number for number in alike if loads.get(number, idle).busy_percent <= most)


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

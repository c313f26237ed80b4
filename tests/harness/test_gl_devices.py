from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.rollout.worker_process import device_of
from harness.sim import gl, gl_devices
from harness.sim.gl_devices import GpuLoad, choose_devices, parse_loads, select

ROOT = Path(__file__).parents[2]


def load(busy: int, used: int = 0) -> GpuLoad:
    return GpuLoad(busy_percent=busy, memory_used_mib=used)


def test_the_least_loaded_come_first_and_busy_ones_are_left_alone() -> None:
    names = dict.fromkeys((0, 1, 2), "A100")
    assert select(names, {0: load(10, 500), 1: load(90), 2: load(10, 100)}) == (2, 0)


def test_only_gpus_that_draw_alike_share_a_run() -> None:
    names = {0: "T4", 1: "A100", 2: "A100"}
    assert select(names, {0: load(9), 1: load(5), 2: load(6)}) == (1, 2)


def test_without_loads_all_are_used_in_order() -> None:
    assert select({0: "A100", 1: "A100"}, {}) == (0, 1)
    assert select({}, {}) == ()


def test_nvidia_smis_lines() -> None:
    assert parse_loads("0, 97, 40210\n1, 0, 3\n2, [N/A], 17\n") == {0: load(97, 40210), 1: load(0, 3)}


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a T4, EGL's default, and two A100."""
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gl_devices, "_egl_devices", lambda: [(0, 0), (1, 2), (2, 1), (3, -1)])
    monkeypatch.setattr(gl_devices, "_loads", lambda: {0: load(3), 1: load(2), 2: load(2)})
    monkeypatch.setattr(gl_devices, "probe", lambda _, device: (True, "T4" if device == 0 else "A100"))


@pytest.mark.usefixtures("mixed")
def test_the_name_recorded_is_that_of_what_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_devices("T4") == ((2, 1), "A100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert choose_devices("T4") == ((1,), "A100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert choose_devices("T4") == ((0,), "T4")


@pytest.mark.usefixtures("mixed")
def test_where_nothing_is_left_egls_default_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_devices("T4") == ((), "T4")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(gl_devices, "probe", lambda *_: (False, "no context"))
    assert choose_devices("T4") == ((), "T4")
    assert choose_devices("llvmpipe (LLVM 15)") == ((), "llvmpipe (LLVM 15)")


def test_the_users_device_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "3")
    assert choose_devices("NVIDIA") == ((3,), "NVIDIA")


def test_workers_take_devices_in_turn() -> None:
    assert [device_of(slot, (4, 7)) for slot in range(3)] == [4, 7, 4]
    assert device_of(5, ()) == -1


@pytest.mark.sim
def test_egls_devices_are_listed() -> None:
    """A machine without a GPU has Mesa's software device, which is no CUDA device."""
    devices = gl_devices._egl_devices()
    assert [egl for egl, _ in devices] == list(range(len(devices)))
    if not shutil.which("nvidia-smi"):
        assert all(cuda == -1 for _, cuda in devices)


def test_a_packaged_osmesa_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = tmp_path / "lavavu_osmesa.libs"
    libraries.mkdir()
    (tmp_path / "lavavu").mkdir()
    (tmp_path / "lavavu" / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert gl.packaged_osmesa() is None
    (libraries / "libOSMesa-0123abcd.so.8.0.0").touch()
    assert gl.packaged_osmesa() == libraries / "libOSMesa-0123abcd.so.8.0.0"


@pytest.mark.sim
def test_a_packaged_osmesa_draws_where_the_system_has_none(tmp_path: Path) -> None:
    """The system's own library, put where the package would have it, and hidden from the loader under its usual names."""
    (system,) = {os.path.realpath(line.split()[-1]) for line in _loaded_osmesa()}
    libraries = tmp_path / "lavavu_osmesa.libs"
    libraries.mkdir()
    (tmp_path / "lavavu").mkdir()
    (tmp_path / "lavavu" / "__init__.py").touch()
    shutil.copy(system, libraries / "libOSMesa-0123abcd.so.8.0.0")
    code = (
        "import ctypes\n"
        "class Hiding(ctypes.CDLL):\n"
        "    def __init__(self, name, *arguments, **keywords):\n"
        "        if str(name).startswith('libOSMesa'):\n"
        "            raise OSError(name)\n"
        "        super().__init__(name, *arguments, **keywords)\n"
        "ctypes.CDLL, ctypes.cdll = Hiding, ctypes.LibraryLoader(Hiding)\n"
        "from harness.sim.gl import renderer_string\n"
        "print(renderer_string('osmesa'))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert "llvmpipe" in done.stdout, done.stderr


def _loaded_osmesa() -> list[str]:
    try:
        ctypes.CDLL("libOSMesa.so.8")
    except OSError:
        pytest.skip("this system has no libOSMesa")
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "libOSMesa" in line]


def test_in_software_osmesa_comes_first_and_auto_prefers_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    there = {"egl": (True, "NVIDIA H100/PCIe/SSE2"), "osmesa": (True, "llvmpipe (LLVM 15)")}
    monkeypatch.setattr(gl, "probe", lambda backend: there[backend])
    assert gl.choose_backend("auto")[0] == gl.choose_backend("egl")[0] == "egl"
    assert gl.choose_backend("software") == ("osmesa", "llvmpipe (LLVM 15)")
    there["osmesa"] = (False, "no libOSMesa")
    assert gl.choose_backend("software")[0] == "egl"
    with pytest.raises(gl.GlError, match="no libOSMesa"):
        gl.choose_backend("osmesa")

"""OpenGL for rendering: which backend to use, whether it works, and what to do where it does not.

`python -m harness.sim.gl egl` tries one backend and prints its renderer string.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from harness.sim.subprocess_environment import package_environment

Backend = Literal["egl", "osmesa"]
BackendChoice = Literal["auto", "software", "egl", "osmesa"]

INSTALL_HINT = (
    "On Debian or Ubuntu: `apt-get install libosmesa6 libegl1 libgl1`. On a machine with an NVIDIA GPU, EGL comes with "
    "its driver (libnvidia-gl). Without root: `pip install lavavu-osmesa` brings a software renderer, and `pip install "
    "opencv-python-headless` in place of opencv-python does without libGL."
)
PROBE_TIMEOUT_S = 120.0
_SOFTWARE = ("llvmpipe", "softpipe", "swrast")


class GlError(RuntimeError):
    """A GL library is missing or makes no context; the message says what to install."""


def explain(error: BaseException, what: str) -> str:
    """The message for a failed import or context."""
    return f"{what}: {type(error).__name__}: {error}\nA GL library is missing, or no device can be drawn on. {INSTALL_HINT}"


def set_environment(backend: Backend) -> None:
    """Select the backend for this process. Must precede the first import of mujoco or OpenGL."""
    os.environ["MUJOCO_GL"] = backend
    os.environ["PYOPENGL_PLATFORM"] = backend
    if backend == "osmesa":
        load_osmesa()


@contextlib.contextmanager
def without_cuda_visible_devices() -> Iterator[None]:
    """robosuite takes CUDA_VISIBLE_DEVICES for a list of EGL devices, which it is not."""
    hidden = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        yield
    finally:
        if hidden is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = hidden


def make_gl_context(size_px: int) -> Any:
    """MuJoCo's GL context of the backend that MUJOCO_GL names, not yet current.

    Raises:
        ImportError: the backend's library is missing.
    """
    if uses_egl():
        from mujoco.egl import GLContext
    else:
        from mujoco.osmesa import GLContext
    return GLContext(size_px, size_px)


def uses_egl() -> bool:
    """Whether MUJOCO_GL names EGL, which draws on a GPU where there is one, rather than OSMesa, which never does."""
    return os.environ.get("MUJOCO_GL") != "osmesa"


def load_osmesa() -> None:
    """Make PyOpenGL and MuJoCo find libOSMesa: the system's, else the one in PyPI's `lavavu-osmesa`.

    Must precede the first import of mujoco, which imports PyOpenGL's functions.
    """
    if any(_loads(name) for name in ("libOSMesa.so", "libOSMesa.so.8", "libOSMesa.so.6")):
        return
    packaged = packaged_osmesa()
    if packaged is None:
        return
    import OpenGL.platform

    platform = OpenGL.platform.PLATFORM  # it has looked for the library already, in vain
    platform.GL = platform.OSMesa = _load_with_siblings(packaged)
    platform.install(vars(OpenGL.platform))


def _load_with_siblings(library: Path) -> ctypes.CDLL:
    """Load a library that needs others of its folder and does not say where they are.

    Raises:
        OSError: something else is missing.
    """
    others = [file for file in library.parent.iterdir() if file != library]
    while True:
        try:
            return ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        except OSError:
            missing = [file for file in others if not _loads(str(file))]
            if len(missing) == len(others):
                raise
            others = missing


def packaged_osmesa() -> Path | None:
    """The libOSMesa that `pip install lavavu-osmesa` brings, if it is installed."""
    package = importlib.util.find_spec("lavavu")
    folders = (package.submodule_search_locations or []) if package is not None else []
    libraries = [
        file for folder in folders for file in (Path(folder).parent / "lavavu_osmesa.libs").glob("libOSMesa*.so*")
    ]
    return min(libraries, default=None)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def renderer_string(backend: Backend) -> str:
    """OpenGL's name for the device that a context of this process would draw on.

    Raises:
        GlError: no context can be made.
    """
    set_environment(backend)
    try:
        context = make_gl_context(64)
        from OpenGL import GL

        context.make_current()
        name = GL.glGetString(GL.GL_RENDERER)
        context.free()
    except Exception as error:  # PyOpenGL raises AttributeError, ImportError and its own errors for one missing library
        raise GlError(explain(error, f"no OpenGL context with MUJOCO_GL={backend}")) from error
    if not name:
        raise GlError(
            explain(RuntimeError("the context has no renderer"), f"no OpenGL context with MUJOCO_GL={backend}")
        )
    return name.decode()


def prepare(backend: Backend, rendering: bool) -> str:
    """Make this process ready for the simulation stack: the renderer string, empty where nothing is rendered.

    Raises:
        GlError: images are wanted and no context can be made.
    """
    if rendering:
        return renderer_string(backend)
    os.environ["MUJOCO_GL"] = "disable"  # neither mujoco nor robosuite then looks for a GL library
    return ""


def is_software(renderer: str) -> bool:
    """Whether OpenGL's name for a device says that it is the processor."""
    return any(name in renderer.lower() for name in _SOFTWARE)


def probe(backend: Backend, device: int | None = None) -> tuple[bool, str]:
    """Try a backend in a process of its own: (whether it works, renderer string or reason).

    Args:
        backend: which.
        device: EGL's number of a device; None for the default.
    """
    command = [sys.executable, "-P", "-m", "harness.sim.gl", backend]
    environment = package_environment() | ({} if device is None else {"MUJOCO_EGL_DEVICE_ID": str(device)})
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        return False, f"no OpenGL context with MUJOCO_GL={backend} within {PROBE_TIMEOUT_S:g} s"
    return done.returncode == 0, (done.stdout if done.returncode == 0 else done.stderr).strip()


def choose_backend(choice: BackendChoice) -> tuple[Backend, str]:
    """The backend to use and its renderer string. `auto`: what MUJOCO_GL says; without it EGL on a GPU, else
    OSMesa, else EGL in software. `software`: OSMesa, else EGL, as it comes.

    Raises:
        GlError: none of the backends asked for works.
    """
    if choice == "auto" and os.environ.get("MUJOCO_GL") in ("egl", "osmesa"):
        choice = "egl" if os.environ["MUJOCO_GL"] == "egl" else "osmesa"
    orders: dict[BackendChoice, tuple[Backend, ...]] = {
        "auto": ("egl", "osmesa"),
        "software": ("osmesa", "egl"),
        "egl": ("egl",),
        "osmesa": ("osmesa",),
    }
    working: dict[Backend, str] = {}
    reasons = []
    for backend in orders[choice]:
        works, text = probe(backend)
        if works and (choice == "software" or not is_software(text)):
            return backend, text
        if works:
            working[backend] = text
        else:
            reasons.append(text)
    for backend in ("osmesa", "egl"):
        if backend in working:
            return backend, working[backend]
    raise GlError("\n".join(reasons))


def main() -> int:
    """Print the renderer string of the backend named on the command line."""
    backend: Backend = "egl" if sys.argv[1] == "egl" else "osmesa"
    try:
        print(renderer_string(backend))
    except GlError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.flush()
    os._exit(0)  # EGL's exit handlers print errors that mean nothing


if __name__ == "__main__":
    sys.exit(main())

"""Where a command renders its images: which GL, on which devices."""

from __future__ import annotations

from dataclasses import dataclass

from harness.sim.gl import Backend, BackendChoice, choose_backend, is_software
from harness.sim.gl_devices import choose_devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What a command's workers draw with."""

    backend: Backend
    egl_devices: tuple[int, ...]
    """Among which workers are spread; empty without EGL."""
    renderer: str
    """As the manifest records it."""
    on_gpu: bool


NOTHING_DRAWN = Drawing(backend="osmesa", egl_devices=(), renderer="nothing rendered", on_gpu=False)


def find_drawing(mujoco_gl: BackendChoice) -> Drawing:
    """What `--mujoco-gl` says.

    Raises:
        GlError: images cannot be rendered so.
    """
    backend, device = choose_backend(mujoco_gl)
    egl_devices: tuple[int, ...] = ()
    if backend == "egl":
        egl_devices, device = choose_devices(device)
    return Drawing(
        backend=backend, egl_devices=egl_devices, renderer=f"{backend}: {device}", on_gpu=not is_software(device)
    )

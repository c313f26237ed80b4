"""Where images are rendered: what the manifest records, and whether workers share a GPU or the cores."""

from __future__ import annotations

import pytest

from harness import drawing
from harness.drawing import Drawing, find_drawing
from harness.sim.gl import GlError


def test_the_gpus_chosen_and_what_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "choose_backend", lambda wanted: (wanted, "T4"))
    monkeypatch.setattr(drawing, "choose_devices", lambda _: ((2, 1), "A100"))
    assert find_drawing("egl") == Drawing(backend="egl", egl_devices=(2, 1), renderer="egl: A100", on_gpu=True)


def test_osmesa_has_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "choose_backend", lambda wanted: (wanted, "llvmpipe (LLVM 15)"))
    drawn = find_drawing("osmesa")
    assert (drawn.egl_devices, drawn.renderer, drawn.on_gpu) == ((), "osmesa: llvmpipe (LLVM 15)", False)


def test_egl_may_draw_in_software(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "choose_backend", lambda wanted: (wanted, "llvmpipe (LLVM 15)"))
    monkeypatch.setattr(drawing, "choose_devices", lambda device: ((), device))
    assert not find_drawing("egl").on_gpu


def test_no_gl_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> None:
        raise GlError("no GL here")

    monkeypatch.setattr(drawing, "choose_backend", none)
    with pytest.raises(GlError, match="no GL here"):
        find_drawing("auto")

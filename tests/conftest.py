"""What all tests share. `sim` tests drive the real simulator; they draw in software unless MUJOCO_GL says otherwise."""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])

"""Where what can be made again is kept between runs: compiled models, decoded demonstrations."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """VLA_VGGT_CACHE, else `vla-vggt` in the user's cache folder."""
    given = os.environ.get("VLA_VGGT_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vla-vggt"

"""What ships with the package: features of LIBERO's instructions, and trained policies."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
INSTRUCTIONS = FOLDER / "instructions.safetensors"
"""Features of every instruction of LIBERO's suites, for `vla-train --language-model`."""

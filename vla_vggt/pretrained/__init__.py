"""What ships with the package: features of LIBERO's instructions, and trained policies.

docs/results.md says how well the policies do and what they were trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from tasks.suites import find_suite
from vla_vggt.models.language_encoder import LanguageIdentity, LanguageModelError
from vla_vggt.models.language_features import read_language_features
from vla_vggt.training.checkpoint import METADATA, CheckpointError, read_description

FOLDER = Path(__file__).parent
INSTRUCTIONS = FOLDER / "instructions.safetensors"
"""Features of every instruction of LIBERO's suites, for `vla-train --language-model`."""


def shipped_features(language: LanguageIdentity) -> Mapping[str, Tensor]:
    """The features of LIBERO's instructions, if this very language model made them; else none.

    Returns:
        Instruction → [L, D] bfloat16.
    """
    try:
        shipped = read_language_features(INSTRUCTIONS)
        language.require(shipped.identity)
    except LanguageModelError:
        return {}
    return shipped.features


def shipped_checkpoints() -> dict[Path, frozenset[str]]:
    """Checkpoint → the suites it was trained on."""
    folders = sorted(file.parent for file in FOLDER.glob(f"*/{METADATA}"))
    return {folder: frozenset(task.suite for task in read_description(folder).tasks) for folder in folders}


def find_shipped(suites: Sequence[str]) -> Path:
    """The shipped checkpoint that was trained on these suites; LIBERO-PRO's variants count as what they vary.

    Raises:
        CheckpointError: there is none; the message says which there are.
        UnknownTaskError: there is no such suite.
    """
    wanted = {find_suite(suite).base for suite in suites}
    shipped = shipped_checkpoints()
    for folder, trained in shipped.items():
        if wanted <= trained:
            return folder
    there = "; ".join(f"{folder.name}: {', '.join(sorted(trained))}" for folder, trained in shipped.items())
    each_has_one = all(any(suite in trained for trained in shipped.values()) for suite in wanted)
    raise CheckpointError(
        f"no checkpoint that ships was trained on {' and '.join(sorted(wanted))} (there is {there}). "
        + ("Evaluate one suite at a time, or say" if each_has_one else "Say")
        + " what to evaluate: --checkpoint PATH, --policy module:name, or --policy expert"
    )

#!/usr/bin/env python3
"""Encodes every instruction of LIBERO's suites, so that training on them needs no language model.

python scripts/encode_instructions.py --language-model FOLDER --name HUB_ID --output vla_vggt/pretrained/instructions.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.suites import SUITES, load_suite
from vla_vggt.models.language_encoder import DEFAULT_MODEL, LAST_LAYER, LanguageModel
from vla_vggt.models.language_features import save_language_features


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Encode LIBERO's instructions."""

    output: Path
    """The file."""
    language_model: str = DEFAULT_MODEL
    """Hub id or folder."""
    name: str = ""
    """What to call the model in the file. Default: as it was given."""
    language_layer: int = LAST_LAYER
    """Which hidden states; -1: the last."""
    suites: tuple[str, ...] = tuple(SUITES)
    """Of which suites. Default: all."""


def main() -> None:
    """Load, encode, write, say what was written."""
    arguments = tyro.cli(Arguments)
    model = LanguageModel(arguments.language_model, arguments.language_layer)
    tasks = [task for suite in arguments.suites for task in load_suite(suite)]
    texts = sorted({text for task in tasks for text in (task.instruction_file_name, task.instruction_bddl)})
    features = {text: model.encode(text) for text in texts}
    identity = replace(model.identity, model=arguments.name or model.identity.model)
    save_language_features(arguments.output, identity, features)
    longest = max(len(tokens) for tokens in features.values())
    size = arguments.output.stat().st_size / 1e6
    print(
        f"{arguments.output}: {len(features)} instructions, at most {longest} tokens, {size:.1f} MB, {identity.model}"
    )


if __name__ == "__main__":
    main()

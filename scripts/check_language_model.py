#!/usr/bin/env python3
"""Loads a language model as training does and looks at its features: time, shape, and whether paraphrases are neighbours.

python scripts/check_language_model.py                                  # Qwen/Qwen2-0.5B, from the hub or its cache
python scripts/check_language_model.py --language-model FOLDER
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from results.manifest import machine_name
from tasks.suites import SUITES, load_suite
from vla_vggt.models.language_encoder import DEFAULT_MODEL, LAST_LAYER, LanguageModel

PARAPHRASES = (
    ("pick up the black bowl and place it on the plate", "grasp the dark bowl and put it onto the plate"),
    ("open the top drawer of the cabinet", "pull out the upper drawer of the cupboard"),
    ("turn on the stove", "switch the stove on"),
    ("put the wine bottle on the rack", "place the bottle of wine onto the wine rack"),
    ("push the plate to the front of the stove", "slide the plate in front of the stove"),
    ("close the microwave", "shut the microwave door"),
    ("put the cream cheese in the bowl", "place the cream cheese inside the bowl"),
    ("pick up the alphabet soup and place it in the basket", "move the can of alphabet soup into the basket"),
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Look at a language model."""

    language_model: str = DEFAULT_MODEL
    """Hub id or folder."""
    language_layer: int = LAST_LAYER
    """Which hidden states; -1: the last."""


def main() -> None:
    """Load, encode, compare, print."""
    arguments = tyro.cli(Arguments)
    out = Console(highlight=False, soft_wrap=True)
    started = time.perf_counter()
    model = LanguageModel(arguments.language_model, arguments.language_layer)
    out.print(f"{machine_name()}, torch {torch.__version__}", markup=False)
    out.print(f"loaded and hashed in {time.perf_counter() - started:.1f} s: {model.identity}", markup=False)
    prompts = {
        p for name in SUITES for task in load_suite(name) for p in (task.instruction_file_name, task.instruction_bddl)
    }
    started = time.perf_counter()
    lengths = {prompt: model.encode(prompt).shape for prompt in sorted(prompts)}
    took_ms = 1000 * (time.perf_counter() - started) / len(prompts)
    longest = max(lengths, key=lambda prompt: lengths[prompt][0])
    out.print(
        f"{len(prompts)} instructions of all suites, {took_ms:.0f} ms each; longest {list(lengths[longest])}: {longest}",
        markup=False,
    )
    nearest = neighbours(model)
    right = sum(found == i for i, found in enumerate(nearest))
    out.print(f"nearest by mean feature: the paraphrase for {right} of {len(PARAPHRASES)}", markup=False)
    for (text, _), found in zip(PARAPHRASES, nearest, strict=True):
        out.print(f"  {text}  →  {PARAPHRASES[found][1]}", markup=False)


def neighbours(model: LanguageModel) -> list[int]:
    """For each instruction the index of the nearest rewording: cosine of the mean feature, the mean over all texts taken off.

    The first token is left out: causal models put the same large values there whatever the text.
    """
    texts = [text for pair in PARAPHRASES for text in pair]
    features = torch.stack([model.encode(text)[1:].float().mean(dim=0) for text in texts])  # [2 n, D]
    features = functional.normalize(features - features.mean(dim=0), dim=1)
    similarity = features[::2] @ features[1::2].T  # [n, n]
    return similarity.argmax(dim=1).tolist()


if __name__ == "__main__":
    main()

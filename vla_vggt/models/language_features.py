"""Features of instructions in a file: training on tasks of LIBERO needs no language model then.

One safetensors file; which model made the features, and of which instructions, stands in its header. The one that ships with the
package has every instruction of LIBERO's suites, in the words of the tasks' file names and of their BDDL files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vla_vggt.models.language_encoder import LanguageIdentity, LanguageModel, LanguageModelError

FORMAT = "vla-vggt instruction features 1"
SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LanguageFeatures:
    """What a language model made of some instructions; encodes these as the model would, and no others."""

    identity: LanguageIdentity
    features: Mapping[str, Tensor]
    """Instruction → [L, D] bfloat16."""
    file: Path

    def encode(self, instruction: str) -> Tensor:
        """The features of an instruction's tokens: [L, D] bfloat16, on the CPU.

        Raises:
            LanguageModelError: it is not among them.
        """
        if instruction not in self.features:
            raise LanguageModelError(
                f"{self.file} has features of {len(self.features)} instructions, {instruction!r} is not among them. "
                f"They were made with {self.identity.model}: name it, or a folder it lies in, with --language-model."
            )
        return self.features[instruction]


def load_language(model: str, layer: int) -> LanguageModel | LanguageFeatures:
    """A language model, by hub id or folder, or the features in a file.

    Raises:
        LanguageModelError: it cannot be loaded, or the file's features are of another layer.
    """
    if not model.endswith(SUFFIX):
        return LanguageModel(model, layer)
    found = read_language_features(Path(model))
    if found.identity.layer != layer:
        raise LanguageModelError(f"{model}: expected features of layer {layer}, got layer {found.identity.layer}")
    return found


def save_language_features(file: Path, identity: LanguageIdentity, features: Mapping[str, Tensor]) -> None:
    """Write features of instructions.

    Raises:
        OSError: the file cannot be written.
    """
    header = {"format": FORMAT, "language": json.dumps(asdict(identity)), "instructions": json.dumps(list(features))}
    pending = file.with_name(f".{file.name}.pending")
    save_file({str(i): tensor.contiguous() for i, tensor in enumerate(features.values())}, pending, metadata=header)
    pending.replace(file)


def read_language_features(file: Path) -> LanguageFeatures:
    """Read what `save_language_features` wrote.

    Raises:
        LanguageModelError: it is not there, cut off, or something else.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            if header.get("format") != FORMAT:
                raise LanguageModelError(
                    f"{file} holds no features of instructions (format {header.get('format')!r}); "
                    "scripts/encode_instructions.py makes such a file. A language model is named by its folder."
                )
            texts = json.loads(header["instructions"])
            identity = LanguageIdentity(**json.loads(header["language"]))
            features = {text: opened.get_tensor(str(i)) for i, text in enumerate(texts)}
    except LanguageModelError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise LanguageModelError(f"{file}: not readable as features of instructions: {error}") from error
    return LanguageFeatures(identity=identity, features=features, file=file)

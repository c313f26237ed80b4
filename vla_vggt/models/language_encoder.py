"""Instruction → features of a frozen language model, once per instruction.

Any text model that `transformers` loads will do; the default is Qwen2-0.5B. A policy is bound to the very weights whose features it
was trained on, so every set of features carries the `LanguageIdentity` of what made it. An instruction that was already
encoded needs no language model at all: it is loaded when the first one is asked for that is not in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

if TYPE_CHECKING:
    from vla_vggt.models.language_features import LanguageFeatures

DEFAULT_MODEL = "Qwen/Qwen2-0.5B"
LAST_LAYER = -1
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""`owner/name`, or a name alone."""


class LanguageModelError(ValueError):
    """The language model cannot be loaded, or is not the one wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageIdentity:
    """What made a set of features."""

    model: str
    """Hub id or folder, as given."""
    weights_sha256: str
    """Of all weights by name, in float32: the same for one checkpoint however it is stored."""
    tokenizer_sha256: str
    layer: int
    """Of `hidden_states`; -1 is the last, after the final norm."""
    width: int
    """D, as the model's own configuration says."""
    adapter_sha256: str = ""
    """Of what was added to the weights (LoRA); empty for nothing."""

    def require(self, other: LanguageIdentity) -> None:
        """Refuse features of another model than this one's.

        Raises:
            LanguageModelError: weights, tokenizer or layer differ. Where the model was found may differ.
        """
        for name in ("weights_sha256", "tokenizer_sha256", "layer", "width", "adapter_sha256"):
            if getattr(self, name) != getattr(other, name):
                raise LanguageModelError(
                    f"expected the language model the policy was trained with, {self.model} ({name} {getattr(self, name)}), "
                    f"got {other.model} ({name} {getattr(other, name)}). Name the right one with --language-model."
                )


class LanguageModel:
    """A frozen text model with its tokenizer.

    Args:
        model: hub id or folder of `save_pretrained`.
        layer: which of the model's hidden states; -1: the last.
        adapter: folder of what is added to the weights (LoRA); None for nothing.

    Raises:
        LanguageModelError: it cannot be loaded; the message names what to download.
    """

    def __init__(self, model: str = DEFAULT_MODEL, layer: int = LAST_LAYER, adapter: Path | None = None) -> None:
        self.tokenizer, self.network = _load(model)
        self._layer = layer
        layers = self.network.config.num_hidden_layers
        if not -layers - 1 <= layer <= layers:
            raise LanguageModelError(f"{model}: expected a layer from {-layers - 1} to {layers}, got {layer}")
        self.identity = LanguageIdentity(
            model=model,
            weights_sha256=weights_sha256(self.network.state_dict()),
            tokenizer_sha256=_tokenizer_sha256(self.tokenizer),
            layer=layer,
            width=self.network.config.hidden_size,
        )
        if adapter is not None:
            self.network, added = _with_adapter(self.network, adapter)
            self.identity = replace(self.identity, adapter_sha256=added)

    @torch.inference_mode()
    def encode(self, instruction: str) -> Tensor:
        """The features of an instruction's tokens: [L, D] bfloat16, on the CPU. Computed in float32.

        Raises:
            ValueError: the instruction is empty, or the tokenizer makes nothing of it.
        """
        if not instruction.strip():
            raise ValueError("expected an instruction, got an empty one")
        tokens = self.tokenizer(instruction, return_tensors="pt")
        if not tokens["input_ids"].shape[1]:
            raise ValueError(f"the tokenizer of {self.identity.model} makes no token of {instruction!r}")
        states = self.network(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], output_hidden_states=True
        ).hidden_states  # layers + 1 of [1, L, D]
        return states[self._layer][0].to(torch.bfloat16).clone()


class LanguageEncoder:
    """Instruction features by instruction; loads the language model for those it does not have.

    Args:
        identity: what made `features`, and must make any others.
        features: instruction → [L, D] bfloat16.
        model: where to load the language model from, when it is needed.
        max_tokens: longest instruction.
        adapter: folder of what the policy's training added to the language model; None for nothing.
    """

    def __init__(
        self,
        *,
        identity: LanguageIdentity,
        features: Mapping[str, Tensor],
        model: str,
        max_tokens: int,
        adapter: Path | None = None,
    ) -> None:
        self.identity = identity
        self.features = dict(features)
        self._model, self._max_tokens, self._adapter = model, max_tokens, adapter
        self._loaded: LanguageModel | LanguageFeatures | None = None

    def encode(self, instruction: str) -> Tensor:
        """[L, D] bfloat16, on the CPU.

        Raises:
            LanguageModelError: the language model is needed and cannot be loaded, or is another one.
            ValueError: the instruction is empty or too long.
        """
        if instruction not in self.features:
            if self._loaded is None:
                self._loaded = self._load()
            self.features[instruction] = self._loaded.encode(instruction)
        features = self.features[instruction]
        check_length(instruction, features, self._max_tokens)
        return features

    def _load(self) -> LanguageModel | LanguageFeatures:
        from vla_vggt.models.language_features import load_language  # which is made of what is above

        if self._adapter is not None:
            loaded: LanguageModel | LanguageFeatures = LanguageModel(self._model, self.identity.layer, self._adapter)
        else:
            loaded = load_language(self._model, self.identity.layer)
        self.identity.require(loaded.identity)
        return loaded


def check_length(instruction: str, features: Tensor, max_tokens: int) -> None:
    """Refuse an instruction that is longer than the policy's.

    Raises:
        ValueError: it is.
    """
    if len(features) > max_tokens:
        raise ValueError(
            f"expected an instruction of at most {max_tokens} tokens, got {len(features)}: {instruction!r}. "
            "A policy trained with a larger --max-language-tokens takes it."
        )


def pad_left(features: list[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """Instructions of a batch, one length: [B, length, D], and [B, length] bool, False for padding.

    Args:
        features: each [L, D] with L ≤ length.
    """
    padded = features[0].new_zeros(len(features), length, features[0].shape[1])
    valid = torch.zeros(len(features), length, dtype=torch.bool, device=padded.device)
    for row, tokens in enumerate(features):
        padded[row, length - len(tokens) :] = tokens
        valid[row, length - len(tokens) :] = True
    return padded, valid


def _load(model: str) -> tuple[Any, Any]:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns at every fork
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its retries without a network
    if not Path(model).exists():
        with contextlib.suppress(OSError, ValueError, KeyError):
            return _from_pretrained(model, local_files_only=True)  # what was downloaded needs no network
    try:
        return _from_pretrained(model, local_files_only=False)
    except (OSError, ValueError, KeyError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if Path(model).exists():
            what_to_do = (
                "Expected a folder as `save_pretrained` writes it: config.json, *.safetensors, tokenizer files."
            )
        elif HUB_ID.fullmatch(model):
            what_to_do = (
                f"It is needed once per new instruction. With a network: `hf download {model}`; without: copy its folder "
                "(config.json, *.safetensors, tokenizer files) from a machine that has one and name it with --language-model FOLDER."
            )
        else:
            first = "it is neither a folder nor a hub id"
            what_to_do = (
                "It is needed once per new instruction. Name its folder (config.json, *.safetensors, tokenizer files) "
                "with --language-model FOLDER."
            )
        raise LanguageModelError(f"the language model {model!r} cannot be loaded: {first}\n{what_to_do}") from error


def _from_pretrained(model: str, *, local_files_only: bool) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=local_files_only)
    loaded = AutoModel.from_pretrained(model, dtype=torch.float32, local_files_only=local_files_only)
    return tokenizer, loaded.eval().requires_grad_(False)


def _with_adapter(network: Any, folder: Path) -> tuple[Any, str]:
    """The model with its additions, and their fingerprint."""
    try:
        from peft import PeftModel, get_peft_model_state_dict

        adapted = PeftModel.from_pretrained(network, str(folder))
    except ImportError as error:
        raise LanguageModelError(
            f"the policy's language model was fine-tuned with LoRA, and peft is missing ({error}): pip install 'vla-vggt[lora]'"
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise LanguageModelError(f"{folder}: the additions to the language model cannot be loaded: {error}") from error
    return adapted.eval().requires_grad_(False), adapter_sha256(dict(get_peft_model_state_dict(adapted)))


def adapter_sha256(additions: Mapping[str, Tensor]) -> str:
    """Of the matrices that LoRA adds, by name, in float32."""
    return weights_sha256(additions)


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Of all weights by name, in float32."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {tuple(weights[name].shape)}\n".encode())
        digest.update(weights[name].detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tokenizer_sha256(tokenizer: Any) -> str:
    """Of a fast tokenizer's whole definition; of the vocabulary of a slow one."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    text = fast.to_str() if fast is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()

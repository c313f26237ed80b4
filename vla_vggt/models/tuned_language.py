"""A language model that is trained along with the policy, whole or by low-rank additions (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vla_vggt.models.language_encoder import (
    LanguageIdentity,
    LanguageModel,
    LanguageModelError,
    adapter_sha256,
    weights_sha256,
)
from vla_vggt.models.sharding import all_processes, gathered, local, shard

Tuning = Literal["lora", "full"]
LORA_ALPHA = 2
"""Scale of the additions, in ranks."""


class TunedLanguage(nn.Module):
    """Features of a fixed list of instructions, with gradients.

    Args:
        model: where to begin.
        tuning: lora: what the layers' matrices are added to, and nothing else; full: all weights.
        rank: of the additions.
        instructions: whose features are wanted.
        length: L, to which features are padded on the left.

    Raises:
        LanguageModelError: `peft` is not installed.
    """

    def __init__(
        self, model: LanguageModel, *, tuning: Tuning, rank: int, instructions: Sequence[str], length: int
    ) -> None:
        super().__init__()
        self._base, self._tokenizer, self._layer = model.identity, model.tokenizer, model.identity.layer
        self.tuning: Tuning = tuning
        self.instructions = tuple(instructions)
        self._layer_classes: tuple[str, ...] = tuple(model.network._no_split_modules or ())
        network: Any = model.network.requires_grad_(tuning == "full")
        self.network: Any = network if tuning == "full" else _with_additions(network, rank)
        self.network.eval()  # no dropout: the features of a step are a function of the weights
        tokens = [self._tokenizer(text)["input_ids"] for text in instructions]
        longest = max(map(len, tokens))
        ids = torch.zeros(len(tokens), longest, dtype=torch.int64)
        mask = torch.zeros(len(tokens), longest, dtype=torch.int64)
        source = torch.zeros(len(tokens), length, dtype=torch.int64)
        valid = torch.zeros(len(tokens), length, dtype=torch.bool)
        for row, words in enumerate(tokens):
            ids[row, : len(words)], mask[row, : len(words)] = torch.tensor(words), 1
            source[row, length - len(words) :] = torch.arange(len(words))
            valid[row, length - len(words) :] = True
        for name, tensor in (("ids", ids), ("mask", mask), ("source", source), ("valid", valid)):
            self.register_buffer(f"_{name}", tensor, persistent=False)
        self._freeze_what_has_no_part()

    def _freeze_what_has_no_part(self) -> None:
        """Layers above the one whose states are the features, a pooler: nothing flows back into them."""
        torch.autograd.backward(self.encode()[0].float().sum())
        for parameter in self.network.parameters():
            if parameter.grad is None:
                parameter.requires_grad_(False)
            parameter.grad = None

    def encode(self) -> tuple[Tensor, Tensor]:
        """([n, L, D] float32 or bfloat16, [n, L] bool): features, padded on the left, and what is no padding."""
        encoded: tuple[Tensor, Tensor] = self(self.get_buffer("_ids"))
        return encoded

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """`encode`, which is to be called. Only divided weights need it: on a GPU FSDP2 takes no call without a tensor in it."""
        mask, source, valid = (self.get_buffer(f"_{name}") for name in ("mask", "source", "valid"))
        # padded on the right here, where positions are those of an instruction alone
        states = self.network(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        features = states[self._layer]  # [n, longest, D]
        moved = torch.gather(features, 1, source[..., None].expand(-1, -1, features.shape[2]))  # [n, L, D]
        return moved * valid[..., None], valid

    @torch.no_grad()
    def features(self) -> dict[str, Tensor]:
        """Instruction → [L, D] bfloat16 on the CPU, without padding: as a checkpoint carries them."""
        features, valid = self.encode()
        return {
            text: row[kept].to(torch.bfloat16).cpu()
            for text, row, kept in zip(self.instructions, features, valid, strict=True)
        }

    def divide(self, device: torch.device) -> None:
        """Divide the weights among all processes, which must compute features together from now on."""
        # not the network by itself: `fully_shard` gives a module another class, and transformers knows its models by theirs
        shard(self, self._layer_classes, all_processes(device))

    def described(self) -> str:
        """How much of it is trained, and how much of it this process holds."""
        parameters = list(self.network.parameters())
        trained, all_, held = (
            sum(map(torch.numel, chosen))
            for chosen in ([p for p in parameters if p.requires_grad], parameters, map(local, parameters))
        )
        share = "" if held == all_ else f"; this process holds {held:,}"
        return f"{self.tuning}, {trained:,} of {all_:,} parameters{share}"

    def weights(self) -> dict[str, Tensor]:
        """What training changes, whole, for `identity` and `save`: in the main process, but every process must call it."""
        state: dict[str, Tensor] = self.network.state_dict()
        return gathered({name: tensor for name, tensor in state.items() if self.tuning == "full" or ".lora_" in name})

    def identity(self, weights: Mapping[str, Tensor]) -> LanguageIdentity:
        """What makes features with these weights."""
        if self.tuning == "full":
            return replace(self._base, weights_sha256=weights_sha256(weights))
        return replace(self._base, adapter_sha256=adapter_sha256(_additions(self.network, weights)))

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write what a policy needs for a new instruction: the additions, or the model and its tokenizer.

        Raises:
            OSError: it cannot be written.
        """
        self.network.save_pretrained(folder, state_dict=dict(weights))
        if self.tuning == "full":
            self._tokenizer.save_pretrained(folder)


def _with_additions(network: Any, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise LanguageModelError(
            f"--finetune-language lora needs peft ({error}): pip install 'vla-vggt[lora]', or --finetune-language full"
        ) from error
    config = LoraConfig(r=rank, lora_alpha=LORA_ALPHA * rank, lora_dropout=0.0, target_modules="all-linear")
    return get_peft_model(network, config)


def _additions(network: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(network, state_dict=dict(weights)))

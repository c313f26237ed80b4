"""A Qwen2 of random weights with a byte-level tokenizer, as `save_pretrained` writes them: for the real loading path without a hub."""

from __future__ import annotations

from pathlib import Path

WIDTH = 32
WORDS = (
    *("pick", "up", "the", "black", "bowl", "between", "plate", "and", "ramekin", "place", "it", "on", "in", "basket"),
    *("alphabet", "soup", "lift", "cube", "next", "to", "cookie", "box", "from", "table", "center", "of", "drawer"),
)
"""One token each, or two with the space before it."""


def save_tiny_language_model(folder: Path, seed: int = 0) -> Path:
    """Write the model and its tokenizer into `folder`, and return it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list(dict.fromkeys(pair for word in WORDS for pair in _merges(word)))
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in merges), "<|endoftext|>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        Qwen2Model(config).save_pretrained(folder)
    return folder


def _merges(word: str) -> list[tuple[str, str]]:
    """The merges that join a word's letters one by one, alone and after a space."""
    pairs = []
    for letters in (word, f"Ġ{word}"):
        pairs += [(letters[:end], letters[end]) for end in range(1, len(letters))]
    return pairs

"""Checkpoints: a folder of safetensors and JSON, or one `.pth` file of the same content. Nothing is unpickled.

```
checkpoints/000500/
  checkpoint.json              configuration, statistics, language model's identity, what it was trained on
  model.safetensors            the weights to evaluate: the moving average
  instructions.safetensors     the language model's features of the instructions trained on
  training_state.safetensors   the weights being trained and the optimiser's state, to go on from
  language/                    a fine-tuned language model, or what LoRA adds to one; for new instructions
checkpoints/last, checkpoints/best   links to the newest and to the one with the lowest validation loss, or the highest success
```
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tasks.interface import ACTION_DIM, PROPRIO_DIM, ImageConvention
from vla_vggt.configs.model_config import ModelConfig
from vla_vggt.data.statistics import Statistics
from vla_vggt.models.language_encoder import LanguageIdentity

FORMAT = "vla-vggt checkpoint"
FORMAT_VERSION = 1
METADATA, MODEL, INSTRUCTIONS, TRAINING_STATE = (
    "checkpoint.json",
    "model.safetensors",
    "instructions.safetensors",
    "training_state.safetensors",
)
LANGUAGE = "language"
LINKS = ("best", "last")


class CheckpointError(ValueError):
    """There is no checkpoint, or it is damaged or not one of VLA-VGGT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTask:
    """One task a policy was trained on."""

    name: str
    suite: str
    """The LIBERO suite; empty for none."""
    instruction: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDescription:
    """All of a policy but its weights and features."""

    model: ModelConfig
    action_statistics: Statistics
    proprio_statistics: Statistics
    language: LanguageIdentity
    image_convention: ImageConvention
    recorded_px: int
    """Height and width of the demonstrations' images."""
    execute_steps: int
    """Recommended: actions of a chunk to execute before the next query."""
    tasks: tuple[TrainedTask, ...]
    data_sha256: str
    init_states_sha256: tuple[str, ...]
    """Of the first state of every demonstration trained on."""
    step: int
    """Optimiser steps behind the weights."""
    validation_loss: float | None
    """None without validation demonstrations."""
    training: dict[str, Any]
    """The command's arguments."""
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyCheckpoint:
    """What it takes to act."""

    description: PolicyDescription
    weights: dict[str, Tensor]
    """float32 or bfloat16, by the model's names."""
    instructions: dict[str, Tensor]
    """Instruction → features [L, D] bfloat16."""

    @property
    def sha256(self) -> str:
        """The fingerprint of all that decides the actions."""
        digest = hashlib.sha256()
        description = asdict(self.description)
        acting = ("model", "action_statistics", "proprio_statistics", "language", "image_convention", "recorded_px")
        digest.update(json.dumps([description[name] for name in acting], sort_keys=True).encode())
        for tensors in (self.weights, self.instructions):
            for name in sorted(tensors):
                digest.update(f"{name} {tuple(tensors[name].shape)}\n".encode())
                digest.update(tensors[name].cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingState:
    """What it takes to go on, beside the policy."""

    tensors: dict[str, Tensor]
    """Weights and optimiser state, by name."""
    progress: dict[str, Any]
    """Numbers: the step, the best validation loss so far."""


def save_checkpoint(
    folder: Path, policy: PolicyCheckpoint, state: TrainingState, save_language: Callable[[Path], None] | None = None
) -> None:
    """Write a checkpoint; it appears whole or not at all.

    Args:
        save_language: writes a language model that was trained too into a folder.

    Raises:
        OSError: it cannot be written; what was saved before is untouched.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _save_tensors(policy.weights, made / MODEL)
        _save_tensors({str(i): f for i, f in enumerate(policy.instructions.values())}, made / INSTRUCTIONS)
        _save_tensors(state.tensors, made / TRAINING_STATE)
        if save_language is not None:
            save_language(made / LANGUAGE)
        metadata = _metadata(policy) | {"progress": state.progress}
        (made / METADATA).write_text(json.dumps(metadata, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        made.chmod(0o755)
        made.rename(folder)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"cannot save {folder}: {error}. Free some space there; the checkpoints before are whole."
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def save_policy(folder: Path, policy: PolicyCheckpoint) -> None:
    """Write what it takes to act, and nothing to go on training from; `load_policy` reads it.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save_tensors(policy.weights, folder / MODEL)
    _save_tensors({str(i): f for i, f in enumerate(policy.instructions.values())}, folder / INSTRUCTIONS)
    (folder / METADATA).write_text(json.dumps(_metadata(policy), indent=1) + "\n")


def link_checkpoint(folder: Path, name: str, *, in_use: Collection[Path] = ()) -> None:
    """Let `name` beside `folder` lead to it, and remove the checkpoints nothing leads to any more, but those `in_use`."""
    pending = folder.parent / f".{name}-link"
    pending.unlink(missing_ok=True)
    pending.symlink_to(folder.name)
    pending.replace(folder.parent / name)
    kept = {path.resolve() for path in (folder, *in_use, *(folder.parent / link for link in LINKS))}
    for other in folder.parent.iterdir():
        if other.is_dir() and not other.is_symlink() and other.name.isdigit() and other.resolve() not in kept:
            shutil.rmtree(other)


def save_pth(file: Path, policy: PolicyCheckpoint) -> None:
    """Write a policy as one file that `torch.load(file, weights_only=True)` reads.

    Raises:
        OSError: it cannot be written.
    """
    content = {"metadata": json.dumps(_metadata(policy)), "weights": policy.weights}
    content["instructions"] = {str(i): features for i, features in enumerate(policy.instructions.values())}
    pending = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        torch.save(content, pending)
        pending.replace(file)
    except (OSError, RuntimeError) as error:
        raise OSError(f"cannot save {file}: {error}. Free some space there.") from error
    finally:
        pending.unlink(missing_ok=True)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint's folder or file: `path`, or the best one below it where `path` is a training run's folder.

    Raises:
        CheckpointError: there is none.
    """
    for candidate in (path, path / "best", path / "checkpoints" / "best", path / "last", path / "checkpoints" / "last"):
        if (candidate / METADATA).is_file():
            return candidate
    if path.is_file():
        return path
    found = (
        "nothing"
        if not path.exists()
        else f"a folder with {', '.join(sorted(p.name for p in path.iterdir())) or 'nothing in it'}"
    )
    raise CheckpointError(
        f"expected a VLA-VGGT checkpoint at {path}: a folder with {METADATA}, a training run's folder, or a .pth file; found {found}"
    )


def read_description(path: Path) -> PolicyDescription:
    """What a checkpoint says of itself; the weights are not read from a folder.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    found = find_checkpoint(path)
    return _description(_read_pth(found)["metadata"] if found.is_file() else _read_metadata(found), found)


def load_policy(path: Path) -> PolicyCheckpoint:
    """Read a policy from a folder or a `.pth` file.

    Raises:
        CheckpointError: there is none, it is damaged, or weights and configuration do not belong together.
    """
    found = find_checkpoint(path)
    if found.is_file():
        content = _read_pth(found)
        metadata, weights, features = content["metadata"], content["weights"], content["instructions"]
    else:
        metadata = _read_metadata(found)
        weights, features = _load_tensors(found / MODEL), _load_tensors(found / INSTRUCTIONS)
    texts = metadata.get("instructions", [])
    if sorted(features) != sorted(str(i) for i in range(len(texts))):
        raise CheckpointError(f"{found}: expected features of {len(texts)} instructions, found {len(features)}")
    return PolicyCheckpoint(
        description=_description(metadata, found),
        weights=dict(weights),
        instructions={text: features[str(i)] for i, text in enumerate(texts)},
    )


def find_tuned_language(path: Path) -> Path | None:
    """Where a checkpoint has its fine-tuned language model; None where it has none (a `.pth` file never has)."""
    folder = find_checkpoint(path) / LANGUAGE
    return folder if folder.is_dir() else None


def load_training_state(folder: Path) -> TrainingState:
    """Read what `save_checkpoint` kept for going on.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    progress = _read_metadata(folder).get("progress")
    if not isinstance(progress, dict):
        raise CheckpointError(f"{folder / METADATA}: no `progress` in it; this checkpoint cannot be trained on")
    return TrainingState(tensors=_load_tensors(folder / TRAINING_STATE), progress=progress)


def _metadata(policy: PolicyCheckpoint) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        **asdict(policy.description),
        "instructions": list(policy.instructions),
    }


def _save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)


def _load_tensors(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(f"the checkpoint {file.parent} lacks {file.name}; it was not copied whole")
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged, perhaps cut off while copying: {error}. Copy it again.") from error


def _read_metadata(folder: Path) -> dict[str, Any]:
    try:
        metadata = json.loads((folder / METADATA).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / METADATA} is damaged: {error}") from error
    return _checked(metadata, folder)


def _checked(metadata: Any, where: Path) -> dict[str, Any]:
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise CheckpointError(f"{where} is no VLA-VGGT checkpoint")
    if metadata.get("version") != FORMAT_VERSION:
        raise CheckpointError(f"{where}: expected format version {FORMAT_VERSION}, got {metadata.get('version')}")
    return metadata


def _read_pth(file: Path) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{file}: not a readable checkpoint (cut off, or not one of VLA-VGGT?): {first}"
        ) from error
    if not isinstance(content, dict) or not {"metadata", "weights", "instructions"} <= content.keys():
        raise CheckpointError(f"{file} is no VLA-VGGT checkpoint: expected metadata, weights and instructions in it")
    content["metadata"] = _checked(json.loads(content["metadata"]), file)
    return content


def _description(metadata: dict[str, Any], where: Path) -> PolicyDescription:
    missing = [field.name for field in fields(PolicyDescription) if field.name not in metadata]
    if missing:
        raise CheckpointError(f"{where}: the checkpoint does not say {', '.join(missing)}; it cannot be used")
    values = {field.name: metadata[field.name] for field in fields(PolicyDescription)}
    try:
        values["model"] = ModelConfig(
            **{"stem": "patches"} | values["model"] | {"cameras": tuple(values["model"]["cameras"])}
        )
        values["language"] = LanguageIdentity(**values["language"])
        values["tasks"] = tuple(TrainedTask(**task) for task in values["tasks"])
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{where}: the configuration in it is not this version's: {error}") from error
    values["init_states_sha256"] = tuple(values["init_states_sha256"])
    values["action_statistics"] = Statistics.from_plain(values["action_statistics"], "actions", ACTION_DIM)
    values["proprio_statistics"] = Statistics.from_plain(values["proprio_statistics"], "proprioception", PROPRIO_DIM)
    return PolicyDescription(**values)

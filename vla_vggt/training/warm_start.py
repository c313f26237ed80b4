"""Training that starts from another policy's weights: its shape and its scaling come with them."""

from __future__ import annotations

import dataclasses
from typing import Any

from vla_vggt.configs.train_config import TrainArguments
from vla_vggt.training.checkpoint import CheckpointError, PolicyDescription


def with_shape_of(start: PolicyDescription, arguments: TrainArguments) -> TrainArguments:
    """The arguments, where they say what the weights are of as `start` has it.

    Raises:
        CheckpointError: an argument that was given asks for another shape; or the language model would be trained too.
    """
    if arguments.finetune_language != "none" or start.language.adapter_sha256:
        raise CheckpointError("--init-from: starting with a language model that is or was fine-tuned is not supported")
    shape: dict[str, Any] = {
        "cameras": start.model.cameras,
        "chunk_steps": start.model.chunk_steps,
        "neighbours": start.model.neighbours,
        "stem": start.model.stem,
        "image_px": start.model.image_px,
        "proprioception": start.model.proprioception,
        "max_language_tokens": start.model.max_language_tokens,
        "image_convention": start.image_convention,
        "language_layer": start.language.layer,
    }
    for field in dataclasses.fields(TrainArguments):
        if field.name in shape and getattr(arguments, field.name) not in (field.default, shape[field.name]):
            raise CheckpointError(
                f"--{field.name.replace('_', '-')}: expected {shape[field.name]}, as {arguments.init_from} has it, got "
                f"{getattr(arguments, field.name)}. Leave it out: what --init-from names decides."
            )
    return dataclasses.replace(arguments, **shape)


def with_scaling_of(start: PolicyDescription, description: PolicyDescription) -> PolicyDescription:
    """The description with the scaling that the weights were trained with, and with what they have seen before.

    Raises:
        CheckpointError: the demonstrations' images have another size than those before.
    """
    if start.recorded_px != description.recorded_px:
        raise CheckpointError(
            f"--init-from: expected demonstrations with images of {start.recorded_px} px, as before, got {description.recorded_px} px"
        )
    return dataclasses.replace(
        description,
        action_statistics=start.action_statistics,
        proprio_statistics=start.proprio_statistics,
        tasks=tuple(dict.fromkeys((*start.tasks, *description.tasks))),
        init_states_sha256=tuple(dict.fromkeys((*start.init_states_sha256, *description.init_states_sha256))),
    )

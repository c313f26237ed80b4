"""A checkpoint as a policy of the harness.

Every call computes one batch of the same size in the same way, whoever is in it. On a GPU that is bfloat16 weights and one recorded
CUDA graph: at these sizes launching kernels one by one takes longer than running them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tasks.interface import ActionChunk, EpisodeSpec, Observation, OpenLoopSpec, PolicyNeeds
from vla_vggt.data.images import prepare_images, reduce_images
from vla_vggt.data.statistics import action_scaling, proprio_scaling
from vla_vggt.device import choose_device
from vla_vggt.models.language_encoder import LanguageEncoder, pad_left
from vla_vggt.models.vla_model import ModelInputs, VLAModel
from vla_vggt.training.checkpoint import CheckpointError, PolicyCheckpoint, load_policy

BATCH_ON_GPU, BATCH_ON_CPU = 16, 1
"""A CPU computes one sample in half the time of two, and padding would be waste."""
WARM_UP_CALLS = 3
"""Before a graph is recorded: libraries choose and load their kernels in the first calls."""


def load(
    checkpoint: Path | None,
    device: str = "auto",
    language_model: str = "",
    instructions: Sequence[str] = (),
    batch_size: int | None = None,
) -> VlaVggtPolicy:
    """The policy in a checkpoint: what `--checkpoint` loads.

    Args:
        checkpoint: its folder, a training run's folder (the best one in it), or a `.pth` file.
        device: auto, cuda or cpu.
        language_model: where to load the language model from, when an instruction is new; empty: as in training.
        instructions: those that will come: the ones not in the checkpoint are encoded now.
        batch_size: observations per call; None: 16 on a GPU, 1 on a CPU.

    Raises:
        ValueError: there is no whole checkpoint, no such device, or the language model is needed and is missing or another one.
    """
    if checkpoint is None:
        raise CheckpointError(
            "VLA-VGGT needs --checkpoint: a checkpoint's folder, a training run's folder, or a .pth file"
        )
    chosen = choose_device(device)
    size = batch_size or (BATCH_ON_GPU if chosen.type == "cuda" else BATCH_ON_CPU)
    policy = VlaVggtPolicy(load_policy(checkpoint), device=chosen, batch_size=size, language_model=language_model)
    policy.encode(instructions)
    return policy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Inputs:
    """A batch on the device, as observed; a graph reads these very tensors."""

    images: Tensor
    """uint8 [B, C, H, W, 3]"""
    proprio: Tensor
    """float32 [B, 8]"""
    language: Tensor
    """[B, L, D]"""
    language_valid: Tensor
    """bool [B, L]"""


class VlaVggtPolicy:
    """VLA-VGGT behind the harness's `Policy`.

    Args:
        checkpoint: what to act with.
        device: where to compute.
        batch_size: observations per call.
        language_model: where to load the language model from; empty: as in training.

    Raises:
        CheckpointError: the weights are not the configuration's.
    """

    def __init__(
        self, checkpoint: PolicyCheckpoint, *, device: torch.device, batch_size: int, language_model: str = ""
    ) -> None:
        description = checkpoint.description
        self._config = description.model
        self._recorded_px = description.recorded_px
        self._device = device
        self._dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self._model = _model(checkpoint).to(device, self._dtype).eval().requires_grad_(False)
        self._actions = action_scaling(description.action_statistics).to(device)
        self._proprio = proprio_scaling(description.proprio_statistics).to(device)
        self._language = LanguageEncoder(
            identity=description.language,
            features=checkpoint.instructions,
            model=language_model or description.language.model,
            max_tokens=self._config.max_language_tokens,
        )
        self._inputs: _Inputs | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._graph_output = torch.empty(0)
        self.checkpoint_sha256 = checkpoint.sha256
        """Of configuration, weights and features: the same for a folder and a `.pth` file."""
        self.dtype = str(self._dtype).removeprefix("torch.")
        self.needs = PolicyNeeds(
            cameras=self._config.cameras,
            image_convention=description.image_convention,
            batch_size=batch_size,
            ensemble=OpenLoopSpec(execute_steps=description.execute_steps),
            min_image_px=min(description.recorded_px, self._config.image_px),
        )

    def encode(self, instructions: Sequence[str]) -> None:
        """Have the features of these instructions ready.

        Raises:
            ValueError: one is empty or too long, or the language model is needed and is missing or another one.
        """
        for instruction in instructions:
            self._language.encode(instruction)

    def start(self, specs: Sequence[EpisodeSpec]) -> None:
        """Nothing is kept per episode."""

    def finish(self, episode_ids: Sequence[str]) -> None:
        """Nothing is kept per episode."""

    @torch.inference_mode()
    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        """One chunk per observation.

        Raises:
            ValueError: an observation lacks a camera, or its instruction cannot be encoded.
        """
        images = np.stack([o.images for o in observations])  # [B, C, H, W, 3]
        if images.shape[1] != len(self._config.cameras) or images.shape[4:] != (3,):
            raise ValueError(
                f"expected images of {', '.join(self._config.cameras)}, [B, {len(self._config.cameras)}, H, W, 3], "
                f"got {list(images.shape)}"
            )
        features = [self._language.encode(o.instruction) for o in observations]
        language, valid = pad_left(features, self._config.max_language_tokens)
        given = _Inputs(
            images=torch.from_numpy(images),
            proprio=torch.from_numpy(np.stack([o.proprio for o in observations])),
            language=language.to(self._dtype),
            language_valid=valid,
        )
        actions = self._compute(given).double().cpu().numpy()  # [B, H, 7]
        return [ActionChunk(actions=chunk) for chunk in actions]

    def _compute(self, given: _Inputs) -> Tensor:
        """[B, H, 7] float32, on the device."""
        if self._device.type != "cuda":
            return self._forward(given)
        if self._inputs is None or self._inputs.images.shape != given.images.shape:
            self._record(given)
        assert self._inputs is not None
        assert self._graph is not None
        self._fill(given)
        self._graph.replay()
        return self._graph_output

    def _record(self, given: _Inputs) -> None:
        """Record the graph for batches of this shape."""
        self._inputs = _Inputs(
            images=given.images.to(self._device),
            proprio=given.proprio.to(self._device),
            language=given.language.to(self._device),
            language_valid=given.language_valid.to(self._device),
        )
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                self._forward(self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._graph_output = self._forward(self._inputs)

    def _fill(self, given: _Inputs) -> None:
        assert self._inputs is not None
        self._inputs.images.copy_(given.images)
        self._inputs.proprio.copy_(given.proprio)
        self._inputs.language.copy_(given.language)
        self._inputs.language_valid.copy_(given.language_valid)

    def _forward(self, inputs: _Inputs) -> Tensor:
        """[B, H, 7] float32: actions as the simulator takes them."""
        images = prepare_images(reduce_images(inputs.images, self._recorded_px), self._config.image_px)
        predicted = self._model(
            ModelInputs(
                images=images.to(self._dtype),
                language=inputs.language,
                language_valid=inputs.language_valid,
                proprioception=self._proprio.scale(inputs.proprio).to(self._dtype),
            )
        )
        return self._actions.restore(predicted)


def _model(checkpoint: PolicyCheckpoint) -> VLAModel:
    with torch.device("meta"):  # no weights are drawn only to be overwritten
        model = VLAModel(checkpoint.description.model)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in checkpoint.weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"weights and configuration do not belong together: {name} should be {expected.get(name, 'absent')}, "
                f"is {found.get(name, 'missing')}"
            )
    model.load_state_dict(checkpoint.weights, assign=True)
    return model

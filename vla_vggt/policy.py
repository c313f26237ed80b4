"""A checkpoint as a policy of the harness.

Every call computes one batch of the same size in the same way, whoever is in it. On a GPU that is bfloat16 weights and one recorded
CUDA graph, copies to and fro included: at these sizes launching kernels one by one takes longer than running them, and beside other
work on the same GPU every gap between two launches is a chance to be put off, and costs that work two changes of context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tasks.interface import PROPRIO_DIM, ActionChunk, EpisodeSpec, Observation, OpenLoopSpec, PolicyNeeds
from vla_vggt.data.images import prepare_images, reduce_images
from vla_vggt.data.statistics import action_scaling, proprio_scaling
from vla_vggt.device import choose_device
from vla_vggt.models.language_encoder import LanguageEncoder, pad_left
from vla_vggt.models.vla_model import ModelInputs, VLAModel
from vla_vggt.pretrained import shipped_features
from vla_vggt.training.checkpoint import CheckpointError, PolicyCheckpoint, find_tuned_language, load_policy

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
    policy = VlaVggtPolicy(
        load_policy(checkpoint),
        device=chosen,
        batch_size=size,
        language_model=language_model,
        tuned_language=find_tuned_language(checkpoint),
    )
    policy.encode(instructions)
    return policy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Staged:
    """A batch where the CPU writes it and the GPU finds it. Made once per image size: a CUDA graph reads these very tensors."""

    images: Tensor
    """uint8 [B, C, H, W, 3]"""
    proprio: Tensor
    """float32 [B, 8]"""
    rows: Tensor
    """int64 [B]: the instructions', in the table."""
    actions: Tensor
    """float32 [B, H, 7]: the answer."""


class VlaVggtPolicy:
    """VLA-VGGT behind the harness's `Policy`.

    Args:
        checkpoint: what to act with.
        device: where to compute.
        batch_size: observations per call.
        language_model: where to load the language model from; empty: as in training.
        tuned_language: the checkpoint's folder of a fine-tuned one, or of what LoRA adds to one; None for none.

    Raises:
        CheckpointError: the weights are not the configuration's.
    """

    def __init__(
        self,
        checkpoint: PolicyCheckpoint,
        *,
        device: torch.device,
        batch_size: int,
        language_model: str = "",
        tuned_language: Path | None = None,
    ) -> None:
        description = checkpoint.description
        self._config = description.model
        self._recorded_px = description.recorded_px
        self._device = device
        self._dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self._model = _model(checkpoint).to(device, self._dtype).eval().requires_grad_(False)
        self._actions = action_scaling(description.action_statistics).to(device)
        self._proprio = proprio_scaling(description.proprio_statistics).to(device)
        has_adapter = bool(description.language.adapter_sha256)
        whole = str(tuned_language) if tuned_language is not None and not has_adapter else ""
        self._language = LanguageEncoder(
            identity=description.language,
            features=checkpoint.instructions,
            model=language_model or whole or description.language.model,
            max_tokens=self._config.max_language_tokens,
            adapter=tuned_language if has_adapter else None,
        )
        self._may_have_shipped = not language_model
        """Whether features that ship may stand in for the language model: it was not named."""
        self._rows: dict[str, int] = {}
        self._table: tuple[Tensor, Tensor] | None = None
        self._staged: _Staged | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self.encode(tuple(checkpoint.instructions))
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
            if instruction not in self._rows:
                if instruction not in self._language.features and self._may_have_shipped:
                    self._language.features = {**shipped_features(self._language.identity), **self._language.features}
                    self._may_have_shipped = False  # they have them all, or none
                self._language.encode(instruction)
                self._rows[instruction] = len(self._rows)
                self._table = None

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
        self.encode([observation.instruction for observation in observations])
        staged = self._prepare(observations[0].images.shape[1])
        images, proprio = staged.images.numpy(), staged.proprio.numpy()
        for slot, observation in enumerate(observations):
            if observation.images.shape != images.shape[1:]:
                raise ValueError(
                    f"expected images of {', '.join(self._config.cameras)} as {images.shape[1:]}, "
                    f"got {observation.images.shape}"
                )
            images[slot], proprio[slot] = observation.images, observation.proprio
            staged.rows[slot] = self._rows[observation.instruction]
        if self._graph is not None:
            self._graph.replay()
            torch.cuda.current_stream(self._device).synchronize()
        else:
            self._compute()
        actions = staged.actions.double().numpy()  # [B, H, 7], a copy
        return [ActionChunk(actions=chunk) for chunk in actions]

    def _prepare(self, size_px: int) -> _Staged:
        """Make what batches of images of this size are put into and, on a GPU, record the graph that computes with it."""
        batch, config, on_gpu = self.needs.batch_size, self._config, self._device.type == "cuda"
        shape = (batch, len(config.cameras), size_px, size_px, 3)
        if self._table is not None and self._staged is not None and self._staged.images.shape == shape:
            return self._staged
        features = [self._language.encode(instruction) for instruction in self._rows]
        padded, valid = pad_left(features, config.max_language_tokens)
        self._table = (padded.to(self._device, self._dtype), valid.to(self._device))
        self._staged = _Staged(
            images=torch.zeros(shape, dtype=torch.uint8, pin_memory=on_gpu),
            proprio=torch.zeros((batch, PROPRIO_DIM), pin_memory=on_gpu),
            rows=torch.zeros(batch, dtype=torch.int64, pin_memory=on_gpu),
            actions=torch.zeros((batch, config.chunk_steps, config.action_dim), pin_memory=on_gpu),
        )
        if on_gpu:
            self._record()
        return self._staged

    def _record(self) -> None:
        """Record the graph."""
        self._graph = None
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                self._compute()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute()
        self._graph = graph

    def _compute(self) -> None:
        """From what is staged to actions as the simulator takes them. On a GPU: ask for it, not wait for it."""
        staged, table = self._staged, self._table
        assert staged is not None
        assert table is not None
        given, proprio, rows = (
            tensor.to(self._device, non_blocking=True) for tensor in (staged.images, staged.proprio, staged.rows)
        )
        images = prepare_images(reduce_images(given, self._recorded_px), self._config.image_px)
        predicted = self._model(
            ModelInputs(
                images=images.to(self._dtype),
                language=table[0][rows],
                language_valid=table[1][rows],
                proprioception=self._proprio.scale(proprio).to(self._dtype),
            )
        )
        staged.actions.copy_(self._actions.restore(predicted), non_blocking=True)


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

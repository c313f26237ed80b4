"""What training changes: the weights, AdamW's state and the weights' moving average."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from vla_vggt.models.sharding import gathered, is_shard, like, local, part_of
from vla_vggt.models.tuned_language import TunedLanguage
from vla_vggt.training.chunk_loss import ChunkLoss
from vla_vggt.training.optimizer import learning_rate, make_adamw, update_average
from vla_vggt.training.plan import TrainingPlan
from vla_vggt.training.processes import Processes

LANGUAGE = "language."
"""Begins the names of a trained language model's weights."""
MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state of a weight."""


class TrainedWeights:
    """The policy's and, where one is trained, a language model's.

    With several processes each has all of the policy, and a part of the language model.

    Args:
        loss: whose model is trained, on the device.
        language: a language model that is trained too; None for none.
        plan: how.
        processes: that train together.
    """

    def __init__(
        self, loss: ChunkLoss, language: TunedLanguage | None, *, plan: TrainingPlan, processes: Processes
    ) -> None:
        self._plan, self._processes = plan, processes
        self.average: ChunkLoss = copy.deepcopy(loss).requires_grad_(False)
        """The moving average, ready to be evaluated."""
        self.average_language: TunedLanguage | None = copy.deepcopy(language)
        """Of the language model, likewise; None for none."""
        if self.average_language is not None:
            self.average_language.requires_grad_(False)
        if processes.count > 1:
            device = next(loss.model.parameters()).device
            for tuned in (language, self.average_language):
                if tuned is not None:
                    tuned.divide(device)
        self._trained = dict(loss.model.named_parameters())
        self._averaged = dict(self.average.model.named_parameters())
        if language is not None and self.average_language is not None:
            averaged = dict(self.average_language.named_parameters())
            for name, parameter in language.named_parameters():
                if parameter.requires_grad:
                    self._trained[LANGUAGE + name], self._averaged[LANGUAGE + name] = parameter, averaged[name]
        # AdamW takes what this process holds of a divided weight, an ordinary tensor: of a DTensor every operation costs time
        self._divided = {name: local(weight) for name, weight in self._trained.items() if is_shard(weight)}
        self._held = self._trained | self._divided
        self._held_averages = [local(average) for average in self._averaged.values()]
        self._optimizer = make_adamw(
            loss.model,
            lr=plan.lr,
            weight_decay=plan.weight_decay,
            language=[weight for name, weight in self._held.items() if name.startswith(LANGUAGE)],
            language_share=plan.language_share,
        )

    def lr(self, step: int) -> float:
        """The policy's learning rate in step 0, 1, …."""
        plan = self._plan
        return learning_rate(step, peak=plan.lr, warmup_steps=plan.warmup_steps, total_steps=plan.total_steps)

    def update(self, step: int) -> Tensor:
        """Take the gradients of step 0, 1, … into account and forget them: their norm, [] float32."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr(step) * group["share"]
        for name, held in self._divided.items():
            gradient = self._trained[name].grad
            held.grad = None if gradient is None else local(gradient)
            self._trained[name].grad = None
        norm = self._clip_gradients()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        update_average(self._held_averages, self._held.values(), decay=self._plan.ema_decay, step=step)
        return norm

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs beside the average of the policy: in the main process, but every process must call it."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._trained.items():
            tensors[f"weights.{name}"] = parameter
            moments = self._optimizer.state.get(self._held[name], {})
            tensors |= {f"{key}.{name}": part_of(moments[key], parameter) for key in MOMENTS if key in moments}
            if name.startswith(LANGUAGE):
                tensors[f"average.{name}"] = self._averaged[name]
        return gathered(tensors)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], average: Mapping[str, Tensor], step: int) -> None:
        """Go on after step `step` with `state`'s tensors and the policy's average.

        Raises:
            ValueError: they are another model's; the message names the first weight that differs.
        """
        for name, parameter in self._trained.items():
            saved = {}
            for key in ("weights", *MOMENTS):
                tensor = tensors.get(f"{key}.{name}")
                if tensor is None or tensor.shape != parameter.shape:
                    found = "nothing" if tensor is None else list(tensor.shape)
                    raise ValueError(f"expected {key}.{name} {list(parameter.shape)} in the checkpoint, found {found}")
                saved[key] = local(like(tensor, parameter))
            held = self._held[name]
            held.copy_(saved.pop("weights"))
            count = torch.tensor(float(step), device=held.device if held.is_cuda else "cpu")
            self._optimizer.state[held] = {"step": count, **saved}
            if f"average.{name}" in tensors:
                self._averaged[name].copy_(like(tensors[f"average.{name}"], parameter))
        self.average.model.load_state_dict(average)

    def _clip_gradients(self) -> Tensor:
        whole = [
            weight.grad
            for name, weight in self._trained.items()
            if name not in self._divided and weight.grad is not None
        ]
        divided = [held.grad for held in self._divided.values() if held.grad is not None]
        norm = torch.nn.utils.get_total_norm(whole)
        if divided:
            norm = (norm**2 + self._processes.add_up(torch.nn.utils.get_total_norm(divided) ** 2)).sqrt()
        torch._foreach_mul_([*whole, *divided], (self._plan.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

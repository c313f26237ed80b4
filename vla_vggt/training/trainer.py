"""The training loop: steps, validation, checkpoints."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_vggt.data.images import AugmentationDraw, draw_augmentation
from vla_vggt.data.windows import SampleOrder
from vla_vggt.training.checkpoint import (
    PolicyCheckpoint,
    PolicyDescription,
    TrainingState,
    link_checkpoint,
    load_policy,
    save_checkpoint,
    save_pth,
)
from vla_vggt.training.chunk_loss import ChunkLoss
from vla_vggt.training.evaluations import EvaluationResult, Evaluations
from vla_vggt.training.flops import peak_flops, training_flops
from vla_vggt.training.log import StepEntry, TrainingLog
from vla_vggt.training.optimizer import learning_rate, make_adamw, update_average
from vla_vggt.training.plan import Progress, TrainingData, TrainingPlan
from vla_vggt.training.processes import Processes, without_averaging

BEST_FILE = "best_model.pth"
CHECKPOINTS = "checkpoints"
DRAWN_SAMPLES = 4
"""Chunks in the log's picture."""


LANGUAGE = "language."
"""Begins the names of a trained language model's weights."""


class DivergedError(ValueError):
    """The loss is no number any more."""


class Trainer:
    """Trains one model; every step is a function of the plan, the data and the step's number.

    Args:
        loss: the model and all it needs, on the device.
        data: the samples.
        plan: what to do.
        folder: the run's; checkpoints and the log lie in it.
        description: what the checkpoints say; step and validation loss are filled in.
        instructions: the features the checkpoints carry.
        on_progress: told every `log_every` steps.
        processes: that train together, each on its share of every step's samples. The main one writes.
        evaluations: that judge checkpoints meanwhile; None for none.
    """

    def __init__(
        self,
        *,
        loss: ChunkLoss,
        data: TrainingData,
        plan: TrainingPlan,
        folder: Path,
        description: PolicyDescription,
        instructions: dict[str, Tensor],
        on_progress: Callable[[Progress], None],
        processes: Processes | None = None,
        evaluations: Evaluations | None = None,
    ) -> None:
        self._evaluations = evaluations
        self._best_rate: float | None = None
        self._processes = processes or Processes()
        self._loss, self._data, self._plan, self._folder = loss, data, plan, folder
        self._description, self._instructions, self._on_progress = description, instructions, on_progress
        self._model = loss.model
        self._device = next(loss.model.parameters()).device
        compiled: Any = torch.compile(loss, dynamic=False) if plan.compile else loss
        self._parallel = self._processes.wrap(compiled, self._device)
        self._optimizer = make_adamw(
            loss.model,
            lr=plan.lr,
            weight_decay=plan.weight_decay,
            language=loss.language,
            language_share=plan.language_share,
        )
        self._trained = _trained(loss)
        self._average = copy.deepcopy(loss)  # the moving average, ready to be evaluated
        self._averaged = _trained(self._average)
        self._average.requires_grad_(False)
        self._order = SampleOrder(len(data.windows), plan.seed)
        self._best = float("inf")
        self._samples_per_step = plan.batch_size * plan.accumulate * self._processes.count
        self.step = 0
        """Steps done."""

    def run(self) -> None:
        """Train from where it stands to the end.

        Raises:
            DivergedError: the loss is NaN or infinite; the last checkpoint is whole.
            OSError: a checkpoint or the log cannot be written.
        """
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(TrainingLog(self._folder, self.step)) if self._processes.is_main else None
            if self._evaluations is not None:
                stack.callback(self._evaluations.close)
                if log is not None:
                    self._go_on_evaluating(self._evaluations, log)
            self._run_steps(log)
            self._processes.part()
            if self._evaluations is not None and log is not None:
                self._note_success(log, self._evaluations.finish())

    def _run_steps(self, log: TrainingLog | None) -> None:
        pending: list[Tensor] = []
        recent: list[float] = []
        batches = self._data.batches.stream(self._indices())
        started, first = time.perf_counter(), self.step
        while self.step < self._plan.total_steps:
            pending.append(self.train_step(batches))
            save = self._saves_after(self.step)
            if save or self.step % self._plan.log_every == 0:
                entries = self._entries(pending)
                recent += [entry.loss for entry in entries]
                if log is not None:
                    self._report(log, entries, (self.step - first) / (time.perf_counter() - started))
                    if self._evaluations is not None:
                        self._note_success(log, self._evaluations.collect())
                pending.clear()
                if save:
                    self._validate_and_save(log, float(np.mean(recent)))
                    recent.clear()
                started, first = time.perf_counter(), self.step

    def _saves_after(self, step: int) -> bool:
        return step == self._plan.total_steps or step % self._plan.save_every == 0 or self._is_evaluated(step)

    def state(self) -> TrainingState:
        """What `restore` needs to go on."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._trained.items():
            tensors[f"weights.{name}"] = parameter
            for key in ("exp_avg", "exp_avg_sq"):
                if parameter in self._optimizer.state:
                    tensors[f"{key}.{name}"] = self._optimizer.state[parameter][key]
            if name.startswith(LANGUAGE):  # the model's own average is what the checkpoint evaluates
                tensors[f"average.{name}"] = self._averaged[name]
        return TrainingState(tensors=tensors, progress={"step": self.step, "best": self._best})

    @torch.no_grad()
    def restore(self, state: TrainingState, average: dict[str, Tensor]) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it is another model's; the message names the first weight that differs.
        """
        self.step, self._best = int(state.progress["step"]), float(state.progress["best"])
        for name, parameter in self._trained.items():
            saved = {key: state.tensors.get(f"{key}.{name}") for key in ("weights", "exp_avg", "exp_avg_sq")}
            for key, tensor in saved.items():
                if tensor is None or tensor.shape != parameter.shape:
                    found = "nothing" if tensor is None else list(tensor.shape)
                    raise ValueError(f"expected {key}.{name} {list(parameter.shape)} in the checkpoint, found {found}")
            parameter.copy_(saved["weights"])  # type: ignore[arg-type]
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(self.step), device=parameter.device if parameter.is_cuda else "cpu"),
                "exp_avg": saved["exp_avg"].to(parameter.device),  # type: ignore[union-attr]
                "exp_avg_sq": saved["exp_avg_sq"].to(parameter.device),  # type: ignore[union-attr]
            }
            if f"average.{name}" in state.tensors:
                self._averaged[name].copy_(state.tensors[f"average.{name}"])
        self._average.model.load_state_dict(average)

    def _share(self, part: int) -> tuple[int, int]:
        """This process's place among a step's samples in pass `part`: [first, end).

        A step's samples and how they are changed are functions of the step alone; processes and passes divide them among themselves.
        """
        first = (part * self._processes.count + self._processes.rank) * self._plan.batch_size
        return first, first + self._plan.batch_size

    def _indices(self) -> Iterator[NDArray[np.int64]]:
        """The samples of every batch that is left to this process."""
        for step in range(self.step, self._plan.total_steps):
            for part in range(self._plan.accumulate):
                first, _ = self._share(part)
                yield self._order.indices(step * self._samples_per_step + first, self._plan.batch_size)

    def train_step(self, batches: Iterator[Any]) -> Tensor:
        """One step of the optimiser: [8] on the device, the mean errors of the 7 entries and the gradient's norm."""
        plan, step = self._plan, self.step
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr(step) * group["share"]
        chosen = self._order.indices(step * self._samples_per_step, self._samples_per_step)
        windows = self._data.windows
        count = int(
            np.minimum(windows.ends[chosen] - windows.steps[chosen], self._model.config.chunk_steps).sum()
        )  # valid action steps of all batches of all processes: so that dividing them changes nothing
        draw = self._draw(step)
        errors = torch.zeros(self._model.config.action_dim, device=self._device)
        for part in range(plan.accumulate):
            share = draw and draw.part(*self._share(part)).to(self._device)
            final = part == plan.accumulate - 1
            with contextlib.nullcontext() if final else without_averaging(self._parallel):
                batch_errors = self._parallel(next(batches), share)
                # times the processes: gradients are averaged over them, and their sum is wanted
                (batch_errors.sum() * self._processes.count / (count * batch_errors.numel())).backward()
            errors += batch_errors.detach()
        self._processes.add_up(errors)
        norm = torch.nn.utils.clip_grad_norm_(list(self._trained.values()), plan.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        update_average(self._averaged.values(), self._trained.values(), decay=plan.ema_decay, step=step)
        self.step += 1
        return torch.cat([errors / count, norm.detach()[None]])

    def _draw(self, step: int) -> AugmentationDraw | None:
        """How the images of all the step's samples are changed."""
        if self._plan.augmentation is None:
            return None
        return draw_augmentation(
            self._plan.augmentation,
            batch=self._samples_per_step,
            cameras=len(self._model.config.cameras),
            image_px=self._data.image_px,
            seed=self._plan.seed,
            step=step,
        )

    def _lr(self, step: int) -> float:
        return learning_rate(
            step, peak=self._plan.lr, warmup_steps=self._plan.warmup_steps, total_steps=self._plan.total_steps
        )

    def _entries(self, pending: list[Tensor]) -> list[StepEntry]:
        """Read what the device has computed; here the CPU waits for it."""
        entries = []
        first = self.step - len(pending) + 1
        for number, row in enumerate(torch.stack(pending).tolist(), start=first):
            *entry_losses, norm = row
            loss = sum(entry_losses) / len(entry_losses)
            if not np.isfinite(loss):
                raise DivergedError(
                    f"the loss is {loss} at step {number}: training diverged. The checkpoints in "
                    f"{self._folder / CHECKPOINTS} are from before. Try a lower --lr or a longer --warmup-fraction."
                )
            entries.append(
                StepEntry(
                    step=number,
                    loss=loss,
                    entry_losses=tuple(entry_losses),
                    gradient_norm=norm,
                    lr=self._lr(number - 1),
                )
            )
        return entries

    def _report(self, log: TrainingLog, entries: list[StepEntry], steps_per_s: float) -> None:
        samples_per_s = steps_per_s * self._samples_per_step
        peak = peak_flops(torch.cuda.get_device_name(self._device)) if self._device.type == "cuda" else None
        flops = training_flops(self._model.config, self._loss.language_tokens)
        mfu = samples_per_s * flops / (peak * self._processes.count) if peak else None
        log.steps(entries, samples_per_s=samples_per_s, mfu=mfu)
        loss = float(np.mean([entry.loss for entry in entries]))
        self._on_progress(
            Progress(step=self.step, total_steps=self._plan.total_steps, loss=loss, samples_per_s=samples_per_s)
        )

    def _validate_and_save(self, log: TrainingLog | None, training_loss: float) -> None:
        entry_losses = self._validate()
        validation_loss = float(np.mean(entry_losses)) if entry_losses is not None else None
        score = training_loss if validation_loss is None else validation_loss
        is_best = score < self._best
        self._best = min(score, self._best)
        if log is None:
            return
        if entry_losses is not None:
            log.validation(self.step, entry_losses)
        self._draw_chunks(log)
        language = self._average.language
        description = dataclasses.replace(self._description, step=self.step, validation_loss=validation_loss)
        if language is not None:
            description = dataclasses.replace(description, language=language.identity())
        policy = PolicyCheckpoint(
            description=description,
            weights=dict(self._average.model.state_dict()),
            instructions=self._instructions if language is None else language.features(),
        )
        folder = self._checkpoint(self.step)
        save_checkpoint(folder, policy, self.state(), language)
        in_use = self._evaluations.in_use if self._evaluations is not None else set()
        if is_best and self._best_rate is None:
            save_pth(self._folder / BEST_FILE, policy)
            link_checkpoint(folder, "best", in_use=in_use)
        link_checkpoint(folder, "last", in_use=in_use)
        if self._evaluations is not None and self._is_evaluated(self.step):
            self._evaluations.submit(self.step, folder)

    def _is_evaluated(self, step: int) -> bool:
        every = self._plan.evaluate_every
        return every is not None and (step % every == 0 or step == self._plan.total_steps)

    def _go_on_evaluating(self, evaluations: Evaluations, log: TrainingLog) -> None:
        """After an interruption: what was found counts, and the newest checkpoint that was being evaluated is evaluated again."""
        evaluations.begin(anew=self.step == 0)
        found = {result.step: result for result in evaluations.earlier() if result.step <= self.step}
        for result in found.values():
            if not evaluations.was_logged(result.step):
                log.evaluation(result)
                evaluations.note_logged(result.step)
            if self._checkpoint(result.step).is_dir():  # the best one so far is always kept
                self._consider(result)
        kept = (int(path.name) for path in (self._folder / CHECKPOINTS).glob("[0-9]*") if path.is_dir())
        missing = [step for step in kept if step <= self.step and self._is_evaluated(step) and step not in found]
        if missing:
            evaluations.submit(max(missing), self._checkpoint(max(missing)))

    def _note_success(self, log: TrainingLog, results: Iterable[EvaluationResult]) -> None:
        for result in results:
            log.evaluation(result)
            if self._evaluations is not None:
                self._evaluations.note_logged(result.step)
            self._consider(result)

    def _consider(self, result: EvaluationResult) -> None:
        """Let `best` lead to the checkpoint with the highest success, the later of equal ones, if that is what it is to mean."""
        if not self._plan.best_by_success or (self._best_rate is not None and result.rate < self._best_rate):
            return
        assert self._evaluations is not None
        self._best_rate = result.rate
        save_pth(self._folder / BEST_FILE, load_policy(self._checkpoint(result.step)))
        link_checkpoint(self._checkpoint(result.step), "best", in_use=self._evaluations.in_use)

    def _checkpoint(self, step: int) -> Path:
        return self._folder / CHECKPOINTS / f"{step:06d}"

    @torch.inference_mode()
    def _validate(self) -> list[float] | None:
        """The moving average's loss over all held-out samples, for each of the 7 entries; None without any."""
        batches, windows = self._data.validation, self._data.validation_windows
        if batches is None or windows is None:
            return None
        size, processes = self._plan.batch_size, self._processes
        firsts = range(processes.rank * size, len(windows), processes.count * size)
        orders = (np.arange(first, min(first + size, len(windows))) for first in firsts)
        errors = torch.zeros(self._model.config.action_dim, device=self._device)
        for batch in batches.stream(orders):
            errors += self._average(batch, None)
        count = np.minimum(windows.ends - windows.steps, self._model.config.chunk_steps).sum()
        losses: list[float] = (processes.add_up(errors) / float(count)).tolist()
        return losses

    @torch.inference_mode()
    def _draw_chunks(self, log: TrainingLog) -> None:
        """A picture of a few chunks, spread over the held-out samples, or over those trained on where there are none.

        The first and the last sample are left out: a chunk that begins at the end of a demonstration has one step.
        """
        held_out = self._data.validation_windows is not None
        batches = self._data.validation if held_out else self._data.batches
        windows = self._data.validation_windows if held_out else self._data.windows
        assert batches is not None
        assert windows is not None
        batch = batches.get(np.linspace(0, len(windows) - 1, DRAWN_SAMPLES + 2)[1:-1].astype(np.int64))
        predicted = self._average.restored(self._average.predict(batch, None))
        log.chunks(
            self.step,
            "validation" if held_out else "training",
            predicted.float().cpu().numpy(),
            batch.actions.cpu().numpy(),
            batch.valid.cpu().numpy(),
        )


def _trained(loss: ChunkLoss) -> dict[str, Tensor]:
    """Name → what is trained: the model's weights by their own names, a language model's after `language.`."""
    named = {name.removeprefix("model."): parameter for name, parameter in loss.named_parameters()}
    kept = {name for name, parameter in named.items() if parameter.requires_grad or not name.startswith(LANGUAGE)}
    return {name: named[name] for name in named if name in kept}

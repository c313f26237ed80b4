"""The training loop: steps, validation, checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
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
from vla_vggt.models.language_encoder import pad_left
from vla_vggt.models.tuned_language import TunedLanguage
from vla_vggt.training.checkpoint import (
    PolicyCheckpoint,
    PolicyDescription,
    TrainingState,
    link_checkpoint,
    load_policy,
    save_checkpoint,
    save_pth,
)
from vla_vggt.training.chunk_loss import ChunkLoss, InstructionTable
from vla_vggt.training.evaluations import EvaluationResult, Evaluations
from vla_vggt.training.flops import peak_flops, training_flops
from vla_vggt.training.log import StepEntry, TrainingLog
from vla_vggt.training.plan import Progress, TrainingData, TrainingPlan
from vla_vggt.training.processes import Processes, without_averaging
from vla_vggt.training.weights import TrainedWeights

BEST_FILE = "best_model.pth"
CHECKPOINTS = "checkpoints"
DRAWN_SAMPLES = 4
"""Chunks in the log's picture."""


class DivergedError(ValueError):
    """The loss is no number any more."""


class Trainer:
    """Trains one model; every step is a function of the plan, the data and the step's number.

    Args:
        loss: the model and all it needs, on the device.
        language: a language model that is trained too, of the loss's instructions in their order; None for none.
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
        language: TunedLanguage | None = None,
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
        self._loss, self._language, self._data, self._plan, self._folder = loss, language, data, plan, folder
        self._description, self._instructions, self._on_progress = description, instructions, on_progress
        self._model = loss.model
        self._device = next(loss.model.parameters()).device
        compiled: Any = torch.compile(loss, dynamic=False) if plan.compile else loss
        self._parallel = self._processes.wrap(compiled, self._device)
        self._weights = TrainedWeights(loss, language, plan=plan, processes=self._processes)
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
        """What `restore` needs to go on: in the main process, but every process must call it."""
        return TrainingState(tensors=self._weights.state(), progress={"step": self.step, "best": self._best})

    def restore(self, state: TrainingState, average: dict[str, Tensor]) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it is another model's; the message names the first weight that differs.
        """
        self.step, self._best = int(state.progress["step"]), float(state.progress["best"])
        self._weights.restore(state.tensors, average, self.step)

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
        chosen = self._order.indices(step * self._samples_per_step, self._samples_per_step)
        windows = self._data.windows
        count = int(
            np.minimum(windows.ends[chosen] - windows.steps[chosen], self._model.config.chunk_steps).sum()
        )  # valid action steps of all batches of all processes: so that dividing them changes nothing
        draw = self._draw(step)
        errors = torch.zeros(self._model.config.action_dim, device=self._device)
        encoded, table = self._encode()
        for part in range(plan.accumulate):
            share = draw and draw.part(*self._share(part)).to(self._device)
            final = part == plan.accumulate - 1
            with contextlib.nullcontext() if final else without_averaging(self._parallel):
                batch_errors = self._parallel(next(batches), share, table)
                # times the processes: gradients are averaged over them, and their sum is wanted
                (batch_errors.sum() * self._processes.count / (count * batch_errors.numel())).backward()
            errors += batch_errors.detach()
        if encoded is not None:
            torch.autograd.backward(encoded, table.features.grad)
        self._processes.add_up(errors)
        norm = self._weights.update(step)
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

    def _encode(self) -> tuple[Tensor | None, InstructionTable]:
        """The language features of a step: where a language model is trained, its output, and a table that gathers their gradient.

        So the language model runs once per step, however many passes there are.
        """
        if self._language is None:
            return None, self._loss.instructions
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._loss.bf16):
            features, valid = self._language.encode()
        return features, InstructionTable(features=features.detach().requires_grad_(), valid=valid)

    def _averaged_instructions(self) -> tuple[dict[str, Tensor], InstructionTable]:
        """The features a checkpoint of now has, and the same as a table; every process must ask for them."""
        language = self._weights.average_language
        if language is None:
            return self._instructions, self._loss.instructions
        features = language.features()
        padded, valid = pad_left([features[text] for text in language.instructions], self._loss.language_tokens)
        return features, InstructionTable(features=padded.to(self._device), valid=valid.to(self._device))

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
                    lr=self._weights.lr(number - 1),
                )
            )
        return entries

    def _report(self, log: TrainingLog, entries: list[StepEntry], steps_per_s: float) -> None:
        samples_per_s = steps_per_s * self._samples_per_step
        on_gpu = self._device.type == "cuda"
        peak = peak_flops(torch.cuda.get_device_name(self._device)) if on_gpu else None
        memory = torch.cuda.max_memory_allocated(self._device) / 2**30 if on_gpu else None
        flops = training_flops(self._model.config, self._loss.language_tokens)
        mfu = samples_per_s * flops / (peak * self._processes.count) if peak else None
        log.steps(entries, samples_per_s=samples_per_s, mfu=mfu, memory_gib=memory)
        loss = float(np.mean([entry.loss for entry in entries]))
        self._on_progress(
            Progress(step=self.step, total_steps=self._plan.total_steps, loss=loss, samples_per_s=samples_per_s)
        )

    def _validate_and_save(self, log: TrainingLog | None, training_loss: float) -> None:
        instructions, table = self._averaged_instructions()
        entry_losses = self._validate(table)
        validation_loss = float(np.mean(entry_losses)) if entry_losses is not None else None
        score = training_loss if validation_loss is None else validation_loss
        is_best = score < self._best
        self._best = min(score, self._best)
        state, language = self.state(), self._weights.average_language
        language_weights = language.weights() if language is not None else {}
        if log is None:
            return
        if entry_losses is not None:
            log.validation(self.step, entry_losses)
        self._draw_chunks(log, table)
        description = dataclasses.replace(self._description, step=self.step, validation_loss=validation_loss)
        save_language = None
        if language is not None:
            description = dataclasses.replace(description, language=language.identity(language_weights))
            save_language = functools.partial(language.save, weights=language_weights)
        policy = PolicyCheckpoint(
            description=description,
            weights=dict(self._weights.average.model.state_dict()),
            instructions=instructions,
        )
        folder = self._checkpoint(self.step)
        save_checkpoint(folder, policy, state, save_language)
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
    def _validate(self, instructions: InstructionTable) -> list[float] | None:
        """The moving average's loss over all held-out samples, for each of the 7 entries; None without any."""
        batches, windows = self._data.validation, self._data.validation_windows
        if batches is None or windows is None:
            return None
        size, processes = self._plan.batch_size, self._processes
        firsts = range(processes.rank * size, len(windows), processes.count * size)
        orders = (np.arange(first, min(first + size, len(windows))) for first in firsts)
        errors = torch.zeros(self._model.config.action_dim, device=self._device)
        for batch in batches.stream(orders):
            errors += self._weights.average(batch, None, instructions)
        count = np.minimum(windows.ends - windows.steps, self._model.config.chunk_steps).sum()
        losses: list[float] = (processes.add_up(errors) / float(count)).tolist()
        return losses

    @torch.inference_mode()
    def _draw_chunks(self, log: TrainingLog, instructions: InstructionTable) -> None:
        """A picture of a few chunks, spread over the held-out samples, or over those trained on where there are none.

        The first and the last sample are left out: a chunk that begins at the end of a demonstration has one step.
        """
        held_out = self._data.validation_windows is not None
        batches = self._data.validation if held_out else self._data.batches
        windows = self._data.validation_windows if held_out else self._data.windows
        assert batches is not None
        assert windows is not None
        batch = batches.get(np.linspace(0, len(windows) - 1, DRAWN_SAMPLES + 2)[1:-1].astype(np.int64))
        average = self._weights.average
        predicted = average.restored(average.predict(batch, None, instructions))
        log.chunks(
            self.step,
            "validation" if held_out else "training",
            predicted.float().cpu().numpy(),
            batch.actions.cpu().numpy(),
            batch.valid.cpu().numpy(),
        )

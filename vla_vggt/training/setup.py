"""From the command's arguments to a trainer: every input is read and checked before the first step."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tasks.demonstrations import select_demonstrations
from tasks.demonstrations.decoded_set import DemonstrationSet, EpisodeRange
from tasks.demonstrations.hub import download, is_on_hub
from tasks.demonstrations.lerobot import LeRobotDataset, is_lerobot_dataset
from tasks.interface import CONTROL_HZ
from tasks.suites import select_tasks
from vla_vggt.configs.model_config import PRESETS, ModelConfig
from vla_vggt.configs.train_config import TrainArguments
from vla_vggt.data.batches import Batches
from vla_vggt.data.cache import default_cache_folder, load_demonstrations
from vla_vggt.data.images import AugmentationConfig
from vla_vggt.data.statistics import Statistics, action_scaling, proprio_scaling
from vla_vggt.data.windows import Windows, make_windows, split_episodes
from vla_vggt.models.language_encoder import LanguageIdentity, LanguageModel, check_length, pad_left
from vla_vggt.models.language_features import load_language
from vla_vggt.models.tuned_language import TunedLanguage
from vla_vggt.models.vla_model import VLAModel
from vla_vggt.training.checkpoint import (
    CheckpointError,
    PolicyCheckpoint,
    PolicyDescription,
    TrainedTask,
    load_policy,
    load_training_state,
)
from vla_vggt.training.chunk_loss import ChunkLoss, InstructionTable
from vla_vggt.training.evaluations import EvaluationPlan, Evaluations
from vla_vggt.training.plan import Progress, TrainingData, TrainingPlan
from vla_vggt.training.processes import Processes
from vla_vggt.training.resuming import PROCESSES, require_folder, require_same, require_shared
from vla_vggt.training.trainer import CHECKPOINTS, Trainer
from vla_vggt.training.warm_start import with_scaling_of, with_shape_of

AUGMENTATION = AugmentationConfig(shift=0.04, brightness=0.2, contrast=0.2, saturation=0.2)
TOKENS_MULTIPLE = 8
"""A sequence's tokens are padded to a multiple of this: GPU attention kernels take masks of such lengths only."""
PACKAGES = ("torch", "numpy", "transformers")


def prepare_training(
    arguments: TrainArguments,
    *,
    say: Callable[[str], None],
    on_progress: Callable[[Progress], None],
    processes: Processes | None = None,
) -> Trainer:
    """A trainer, ready to run, or to go on from the last checkpoint in the run's folder.

    Args:
        say: told what is being done and what was found.
        on_progress: told how training stands.
        processes: that train together.

    Raises:
        ValueError: an input is wrong; the message says which and what to do.
        OSError: the run's folder or the cache cannot be written.
    """
    processes = processes or Processes()
    device = processes.device(arguments.device)
    start = load_policy(arguments.init_from) if arguments.init_from is not None else None
    if start is not None:
        arguments = with_shape_of(start.description, arguments)
    last = arguments.log_dir / CHECKPOINTS / "last"
    earlier = _earlier(last, processes)
    with processes.first_on_machine():
        demonstrations = _demonstrations(arguments, say)
    training, validation = split_episodes(demonstrations.episodes, arguments.validation_fraction, arguments.seed)
    encoded = _language(arguments, demonstrations, earlier or start, say) if processes.is_main else None
    identity, features = processes.share(encoded)
    config = model_config(arguments, identity.width, features, start)
    description = _description(arguments, config, identity, demonstrations, training, processes=processes.count)
    description = description if start is None else with_scaling_of(start.description, description)
    plan = _evaluation_plan(arguments, description)
    if earlier is not None:
        require_same(earlier.description, description, arguments.log_dir)
    windows = (make_windows(demonstrations, training), make_windows(demonstrations, validation) if validation else None)
    data = _data(arguments, demonstrations, windows, config.chunk_steps, device)
    loss = _loss(arguments, description, features, demonstrations, device, start=start)
    language = _tuned_language(arguments, demonstrations, loss.language_tokens, device)
    trainer = Trainer(
        loss=loss,
        language=language,
        data=data,
        plan=_plan(arguments, len(data.windows), device, processes.count),
        folder=arguments.log_dir,
        description=description,
        instructions=features,
        on_progress=on_progress,
        processes=processes,
        evaluations=Evaluations(arguments.log_dir, plan, say=say) if plan is not None and processes.is_main else None,
    )
    if earlier is not None:
        trainer.restore(load_training_state(last), earlier.weights)
        say(f"Resuming {arguments.log_dir} after step {trainer.step}.")
    given = f"{len(training)} demonstrations of {len(description.tasks)} tasks, {len(data.windows)} samples"
    say(f"{given} ({_held_out(validation)}); {_shape(arguments, start, loss)}, on {device}")
    if language is not None:
        say(f"The language model is trained too: {language.described()}")
    return trainer


def _earlier(last: Path, processes: Processes) -> PolicyCheckpoint | None:
    """What the run goes on from; None where it begins.

    Raises:
        OSError: the run's folder cannot be written.
        CheckpointError: it is damaged, or other processes see another one.
    """
    if processes.is_main:
        require_folder(last.parent.parent, CHECKPOINTS)
    earlier = load_policy(last) if last.exists() else None
    if earlier is None and last.is_symlink():
        raise CheckpointError(f"{last} leads nowhere; remove it to begin anew")
    require_shared(earlier.description.step if earlier is not None else None, last, processes)
    return earlier


def _shape(arguments: TrainArguments, start: PolicyCheckpoint | None, loss: ChunkLoss) -> str:
    origin = arguments.preset if start is None else f"from {arguments.init_from}, step {start.description.step}"
    return f"{origin}, {sum(p.numel() for p in loss.model.parameters()) / 1e6:.1f}M parameters"


def _held_out(validation: list[EpisodeRange]) -> str:
    return f"{len(validation)} held out" if validation else "none held out: `best` goes by the training loss"


def model_config(
    arguments: TrainArguments, language_width: int, features: dict[str, Tensor], start: PolicyCheckpoint | None
) -> ModelConfig:
    """The preset with the command's changes, or what is started from.

    Raises:
        ValueError: sizes that do not fit together, or an instruction that is too long.
    """
    preset = PRESETS[arguments.preset](language_width) if start is None else start.description.model
    config = dataclasses.replace(
        preset,
        cameras=arguments.cameras,
        neighbours=arguments.neighbours,
        image_px=preset.image_px if arguments.image_px is None else arguments.image_px,
        stem=preset.stem if arguments.stem is None else arguments.stem,
        proprioception=arguments.proprioception,
        chunk_steps=preset.chunk_steps if arguments.chunk_steps is None else arguments.chunk_steps,
        max_language_tokens=arguments.max_language_tokens,
    )
    for text, tokens in features.items():
        check_length(text, tokens, config.max_language_tokens)
    return config


def _demonstrations(arguments: TrainArguments, say: Callable[[str], None]) -> DemonstrationSet:
    paths = [download(path, say) if is_on_hub(path) else path for path in arguments.data_path]
    sources = select_demonstrations(paths, arguments.task_names, arguments.prompt_source)
    for folder in dict.fromkeys(source.file for source in sources if is_lerobot_dataset(source.file)):
        _check_control_rate(folder, arguments.control_hz, say)
    demonstrations = load_demonstrations(
        sources,
        cameras=arguments.cameras,
        convention=arguments.image_convention,
        timing=None if arguments.observation_timing == "auto" else arguments.observation_timing,
        folder=default_cache_folder(),
        progress=say,
    )
    for timing in dict.fromkeys(demonstrations.timings.values()):
        files = [name for name, value in demonstrations.timings.items() if value == timing]
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        say(f"Observations were recorded {timing} the action of the same index: {files[0]}{more}")
    return demonstrations


def _check_control_rate(folder: Path, told_hz: float | None, say: Callable[[str], None]) -> None:
    """Actions are executed at LIBERO's rate: demonstrations of another one would be replayed at a wrong speed.

    Raises:
        ValueError: the rate is another one.
    """
    measured = LeRobotDataset(folder).control_hz()
    if told_hz is not None:
        say(f"{folder}: control rate {told_hz:g} Hz, as told (by its timestamps {measured:g} Hz)")
    else:
        say(f"{folder}: control rate {measured:g} Hz, by its timestamps")
    if (told_hz or measured) != CONTROL_HZ:
        raise ValueError(
            f"{folder}: expected demonstrations recorded at LIBERO's control rate of {CONTROL_HZ} Hz, got "
            f"{told_hz or measured:g} Hz. One public set says 10 although it was recorded at {CONTROL_HZ}: if this is such a one, "
            f"say --control-hz {CONTROL_HZ}."
        )


def _language(
    arguments: TrainArguments,
    demonstrations: DemonstrationSet,
    earlier: PolicyCheckpoint | None,
    say: Callable[[str], None],
) -> tuple[LanguageIdentity, dict[str, Tensor]]:
    """What made the features, and the features of every instruction; what training goes on from may have them already.

    Raises:
        LanguageModelError: the language model is needed, and cannot be loaded or is another than before.
    """
    if earlier is not None and set(demonstrations.instructions) <= earlier.instructions.keys():
        return earlier.description.language, earlier.instructions
    say(f"Encoding {len(demonstrations.instructions)} instructions with {arguments.language_model}")
    model = load_language(arguments.language_model, arguments.language_layer)
    if earlier is not None:
        earlier.description.language.require(model.identity)
    return model.identity, {text: model.encode(text) for text in demonstrations.instructions}


def _description(
    arguments: TrainArguments,
    config: ModelConfig,
    identity: LanguageIdentity,
    demonstrations: DemonstrationSet,
    training: list[EpisodeRange],
    *,
    processes: int,
) -> PolicyDescription:
    steps = [slice(episode.first, episode.end) for episode in training]
    tasks = dict.fromkeys((e.task, e.suite, e.instruction) for e in training)
    return PolicyDescription(
        model=config,
        action_statistics=Statistics.of(np.concatenate([demonstrations.actions[part] for part in steps])),
        proprio_statistics=Statistics.of(np.concatenate([demonstrations.proprio[part] for part in steps])),
        language=identity,
        image_convention=arguments.image_convention,
        recorded_px=demonstrations.image_px,
        execute_steps=min(arguments.execute_steps, config.chunk_steps),
        tasks=tuple(TrainedTask(name=name, suite=suite, instruction=text) for name, suite, text in tasks),
        data_sha256=demonstrations.sha256,
        init_states_sha256=tuple(e.init_state_sha256 for e in training if e.init_state_sha256),
        step=0,
        validation_loss=None,
        training=json.loads(json.dumps(asdict(arguments) | {PROCESSES: processes}, default=str)),
        versions={name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()},
    )


def _data(
    arguments: TrainArguments,
    demonstrations: DemonstrationSet,
    windows: tuple[Windows, Windows | None],
    chunk_steps: int,
    device: torch.device,
) -> TrainingData:
    training, held_out = windows

    def batches(chosen: Windows, *, on_device: bool) -> Batches:
        return Batches(demonstrations, chosen, chunk_steps=chunk_steps, device=device, data_on_device=on_device)

    return TrainingData(
        batches=batches(training, on_device=arguments.data_on_device),
        windows=training,
        image_px=demonstrations.image_px,
        validation=batches(held_out, on_device=False) if held_out is not None else None,
        validation_windows=held_out,
    )


def _loss(
    arguments: TrainArguments,
    description: PolicyDescription,
    features: dict[str, Tensor],
    demonstrations: DemonstrationSet,
    device: torch.device,
    *,
    start: PolicyCheckpoint | None,
) -> ChunkLoss:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        model = VLAModel(description.model)
    if start is not None:
        model.load_state_dict(start.weights)
    wanted = [features[text] for text in demonstrations.instructions]
    length = padded_length(description.model, max(len(tokens) for tokens in wanted))
    padded, valid = pad_left(wanted, length)
    return ChunkLoss(
        model.to(device),
        actions=action_scaling(description.action_statistics).to(device),
        proprio=proprio_scaling(description.proprio_statistics).to(device),
        instructions=InstructionTable(features=padded.to(device), valid=valid.to(device)),
        bf16=device.type == "cuda",
    )


def _tuned_language(
    arguments: TrainArguments, demonstrations: DemonstrationSet, length: int, device: torch.device
) -> TunedLanguage | None:
    if arguments.finetune_language == "none":
        return None
    model = LanguageModel(arguments.language_model, arguments.language_layer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        language = TunedLanguage(
            model,
            tuning=arguments.finetune_language,
            rank=arguments.lora_rank,
            instructions=demonstrations.instructions,
            length=length,
        )
    return language.to(device)


def _evaluation_plan(arguments: TrainArguments, description: PolicyDescription) -> EvaluationPlan | None:
    """What `vla-eval` will be told, checked as far as it can be now.

    Raises:
        ValueError: an unknown task, or more episodes than there are init states.
    """
    if arguments.eval_every is None:
        return None
    suites = arguments.eval_suite or tuple(dict.fromkeys(task.suite for task in description.tasks if task.suite))
    if not suites:
        raise ValueError("--eval-every: these demonstrations are of no LIBERO suite; name one with --eval-suite")
    tasks = [task for suite in suites for task in select_tasks(suite, arguments.eval_tasks)]
    fewest = min(task.num_init_states for task in tasks)
    if arguments.eval_episodes > fewest:
        raise ValueError(
            f"--eval-episodes: expected at most {fewest}, as many as init states, got {arguments.eval_episodes}"
        )
    flags = {
        "--workers": arguments.eval_workers,
        "--device": arguments.eval_device,
        "--mujoco-gl": arguments.eval_gl,
        "--policy-batch": str(arguments.eval_batch),
        "--language-model": arguments.language_model,
    }
    return EvaluationPlan(
        suites=suites,
        tasks=arguments.eval_tasks,
        episodes=arguments.eval_episodes,
        flags=tuple(part for flag in flags.items() for part in flag),
    )


def padded_length(config: ModelConfig, longest: int) -> int:
    """L, padding included, at which all tokens together are a multiple of `TOKENS_MULTIPLE`."""
    others = config.vision_tokens + int(config.proprioception)
    return math.ceil((longest + others) / TOKENS_MULTIPLE) * TOKENS_MULTIPLE - others


def _plan(arguments: TrainArguments, samples: int, device: torch.device, processes: int) -> TrainingPlan:
    per_step = arguments.batch_size * arguments.accumulate * processes
    total = arguments.max_steps or math.ceil(arguments.num_epochs * samples / per_step)
    return TrainingPlan(
        total_steps=total,
        warmup_steps=round(arguments.warmup_fraction * total),
        batch_size=arguments.batch_size,
        accumulate=arguments.accumulate,
        lr=arguments.lr,
        weight_decay=arguments.weight_decay,
        max_grad_norm=arguments.max_grad_norm,
        ema_decay=arguments.ema_decay,
        language_share=_language_lr(arguments) / arguments.lr,
        augmentation=dataclasses.replace(AUGMENTATION, shift=arguments.augment_shift) if arguments.augment else None,
        seed=arguments.seed,
        save_every=arguments.save_every,
        log_every=arguments.log_every,
        evaluate_every=arguments.eval_every,
        best_by_success=arguments.best_by == "success",
        compile=arguments.compile == "on" or (arguments.compile == "auto" and device.type == "cuda"),
    )


def _language_lr(arguments: TrainArguments) -> float:
    if arguments.language_lr is not None:
        return arguments.language_lr
    return arguments.lr if arguments.finetune_language == "lora" else arguments.lr / 10

#!/usr/bin/env python3
"""How fast VLA-VGGT trains and acts, and how far that is from what the GPU can do.

    python scripts/bench_training.py                       # base, two cameras, on a GPU: docs/training.md's tables
    python scripts/bench_training.py --preset tiny --batch-size 8 --steps 3 --demonstrations 4

One run compares, in turns: a step on one batch that never changes and is on the device already, a step with data from the mapped
cache, and a step with data kept on the device; augmentation included in all. The data are random images of 256² laid out as a real
set of demonstrations: what is in them does not matter for time.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.demonstrations.decoded_set import DemonstrationSet, EpisodeRange
from tasks.interface import Observation
from vla_vggt.configs.model_config import PRESETS, ModelConfig
from vla_vggt.data.batches import Batch, Batches
from vla_vggt.data.statistics import Statistics, action_scaling, proprio_scaling
from vla_vggt.data.windows import SampleOrder, make_windows
from vla_vggt.device import choose_device
from vla_vggt.models.language_encoder import LanguageIdentity, pad_left
from vla_vggt.models.vla_model import VLAModel
from vla_vggt.policy import VlaVggtPolicy
from vla_vggt.training.checkpoint import PolicyCheckpoint, PolicyDescription
from vla_vggt.training.chunk_loss import ChunkLoss, InstructionTable
from vla_vggt.training.flops import peak_flops, training_flops
from vla_vggt.training.plan import TrainingData, TrainingPlan
from vla_vggt.training.setup import AUGMENTATION, padded_length
from vla_vggt.training.trainer import Trainer

LANGUAGE_WIDTH = 896
"""Qwen2-0.5B's."""
EPISODE_STEPS = 130
RECORDED_PX = 256


@dataclass(frozen=True, kw_only=True)
class BenchArguments:
    """Time training steps and inference."""

    preset: Literal["base", "small", "compact", "tiny"] = "base"
    """Size of the model."""
    batch_size: int = 256
    """Samples per step."""
    heads: int | None = None
    """Attention heads. Default: the preset's."""
    instruction_tokens: int = 19
    """Of the (one) instruction; padded so that all tokens are a multiple of 8."""
    demonstrations: int = 100
    """Random demonstrations of 130 steps; 51 MB each."""
    steps: int = 20
    """Steps per turn."""
    turns: int = 3
    """Turns of each way of giving data."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute."""
    inference_calls: int = 100
    """Timed calls of the policy."""


def main() -> None:
    """Run and print the tables."""
    arguments = tyro.cli(BenchArguments)
    console = Console(width=110)
    device = choose_device(arguments.device)
    torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    config = PRESETS[arguments.preset](LANGUAGE_WIDTH)
    config = config if arguments.heads is None else dataclasses.replace(config, heads=arguments.heads)
    with tempfile.TemporaryDirectory() as folder:
        demonstrations = random_demonstrations(Path(folder), arguments.demonstrations)
        console.print(f"{name}, torch {torch.__version__}; {arguments.preset}, {config.heads} heads, bf16 on a GPU")
        training(arguments, config, demonstrations, device, console)
    inference(arguments, config, device, console)


def random_demonstrations(folder: Path, count: int) -> DemonstrationSet:
    """`count` demonstrations in the cache's layout."""
    generator = np.random.default_rng(0)
    steps = count * EPISODE_STEPS
    images = np.memmap(folder / "images.bin", dtype=np.uint8, mode="w+", shape=(steps, 2, RECORDED_PX, RECORDED_PX, 3))
    for first in range(0, steps, EPISODE_STEPS):
        images[first : first + EPISODE_STEPS] = generator.integers(0, 256, images[:EPISODE_STEPS].shape, dtype=np.uint8)
    episodes = tuple(
        EpisodeRange(
            name=f"demo_{i}",
            task="random",
            suite="",
            instruction="random",
            first=i * EPISODE_STEPS,
            end=(i + 1) * EPISODE_STEPS,
            first_image=i * EPISODE_STEPS,
            image_every=1,
            init_state_sha256="",
        )
        for i in range(count)
    )
    return DemonstrationSet(
        image_parts=(images,),
        proprio=generator.normal(size=(steps, 8)).astype(np.float32),
        actions=generator.uniform(-1, 1, (steps, 7)),
        episodes=episodes,
        sha256="",
        timings={},
        cameras=tuple(f"camera {i}" for i in range(images.shape[1])),
        convention="rotated_180",
    )


def description(config: ModelConfig, demonstrations: DemonstrationSet | None) -> PolicyDescription:
    """Of a policy nobody trained."""
    rows = np.random.default_rng(1).uniform(-1, 1, (100, 8))
    return PolicyDescription(
        model=config,
        action_statistics=Statistics.of(rows[:, :7] if demonstrations is None else demonstrations.actions),
        proprio_statistics=Statistics.of(rows if demonstrations is None else demonstrations.proprio),
        language=LanguageIdentity(
            model="none", weights_sha256="", tokenizer_sha256="", layer=-1, width=config.language_width
        ),
        image_convention="rotated_180",
        recorded_px=RECORDED_PX,
        execute_steps=8,
        tasks=(),
        data_sha256="",
        init_states_sha256=(),
        step=0,
        validation_loss=None,
        training={},
        versions={},
    )


def training(
    arguments: BenchArguments,
    config: ModelConfig,
    demonstrations: DemonstrationSet,
    device: torch.device,
    console: Console,
) -> None:
    """Time steps of the trainer, its data given in three ways."""
    windows = make_windows(demonstrations, list(demonstrations.episodes))
    ways = {
        "memory-mapped cache": Batches(
            demonstrations, windows, chunk_steps=config.chunk_steps, device=device, data_on_device=False
        ),
        "data on device": Batches(
            demonstrations, windows, chunk_steps=config.chunk_steps, device=device, data_on_device=True
        ),
    }
    length = padded_length(config, arguments.instruction_tokens)
    trainer = make_trainer(arguments, config, demonstrations, ways["data on device"], device)
    order = SampleOrder(len(windows), 0)
    fixed = ways["data on device"].get(order.indices(0, arguments.batch_size))
    streams: dict[str, Iterator[Batch]] = {"one fixed batch": itertools.repeat(fixed)}
    for way, batches in ways.items():
        streams[way] = batches.stream(
            order.indices(i * arguments.batch_size, arguments.batch_size) for i in itertools.count()
        )
    started = time.perf_counter()
    for _ in range(3):
        trainer.train_step(streams["one fixed batch"])
    _wait(device)
    console.print(f"compiling and the first three steps: {time.perf_counter() - started:.0f} s")
    times: dict[str, list[float]] = {way: [] for way in streams}
    for _ in range(arguments.turns):
        for way, stream in streams.items():
            trainer.train_step(stream)  # the first after a change fills the queue
            times[way].append(_seconds(lambda s=stream: trainer.train_step(s), arguments.steps, device))  # type: ignore[misc]
    console.print(training_table(arguments, config, length, times, device))
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated(device) / 2**30
        console.print(f"GPU memory at most {used:.1f} GiB, the data in it")


def make_trainer(
    arguments: BenchArguments,
    config: ModelConfig,
    demonstrations: DemonstrationSet,
    batches: Batches,
    device: torch.device,
) -> Trainer:
    """The trainer as `vla-train` makes it, of a model nobody trained."""
    features = torch.randn(arguments.instruction_tokens, config.language_width, dtype=torch.bfloat16)
    padded, valid = pad_left([features], padded_length(config, arguments.instruction_tokens))
    said = description(config, demonstrations)
    loss = ChunkLoss(
        VLAModel(config).to(device),
        actions=action_scaling(said.action_statistics).to(device),
        proprio=proprio_scaling(said.proprio_statistics).to(device),
        instructions=InstructionTable(features=padded.to(device), valid=valid.to(device)),
        bf16=device.type == "cuda",
    )
    total = 10 + 3 * arguments.turns * arguments.steps
    return Trainer(
        loss=loss,
        data=TrainingData(
            batches=batches,
            windows=make_windows(demonstrations, list(demonstrations.episodes)),
            image_px=RECORDED_PX,
            validation=None,
            validation_windows=None,
        ),
        plan=TrainingPlan(
            total_steps=total,
            warmup_steps=total,
            batch_size=arguments.batch_size,
            accumulate=1,
            lr=1e-4,
            weight_decay=0.05,
            max_grad_norm=1.0,
            ema_decay=0.999,
            augmentation=AUGMENTATION,
            seed=0,
            save_every=total,
            log_every=total,
            compile=device.type == "cuda",
        ),
        folder=Path(),
        description=said,
        instructions={},
        on_progress=lambda progress: None,
    )


def training_table(
    arguments: BenchArguments, config: ModelConfig, length: int, times: dict[str, list[float]], device: torch.device
) -> Table:
    """One row per way of giving data; `times` are seconds per step, one for each turn."""
    ceiling = largest_product_flops(device)
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    table = Table(
        "data", "ms/step (min–max)", "samples/s", "TFLOP/s", "MFU", "of a large product", "ratio to fixed",
        title=f"training: batch {arguments.batch_size}, {length + config.vision_tokens + int(config.proprioception)} tokens",
    )  # fmt: skip
    baseline = statistics.median(times["one fixed batch"])
    for way, seconds in times.items():
        median = statistics.median(seconds)
        rate = arguments.batch_size / median
        achieved = rate * training_flops(config, length)
        table.add_row(
            way,
            f"{1000 * median:.1f} ({1000 * min(seconds):.1f}–{1000 * max(seconds):.1f})",
            f"{rate:.0f}",
            f"{achieved / 1e12:.0f}",
            f"{100 * achieved / peak:.1f} %" if peak else "",
            f"{100 * achieved / ceiling:.0f} % of {ceiling / 1e12:.0f}",
            f"{median / baseline:.3f}",
        )
    return table


def inference(arguments: BenchArguments, config: ModelConfig, device: torch.device, console: Console) -> None:
    """Time whole calls of the policy: images from the CPU's memory to actions in it."""
    features = torch.randn(arguments.instruction_tokens, config.language_width, dtype=torch.bfloat16)
    checkpoint = PolicyCheckpoint(
        description=description(config, None), weights=VLAModel(config).state_dict(), instructions={"lift": features}
    )
    generator = np.random.default_rng(2)
    table = Table("batch", "ms/call, median", "90 %", "observations/s", title="inference: policy.act, 256² images")
    for batch in (1, 16):
        policy = VlaVggtPolicy(checkpoint, device=device, batch_size=batch)
        observations = [
            Observation(
                images=generator.integers(0, 256, (len(config.cameras), RECORDED_PX, RECORDED_PX, 3), dtype=np.uint8),
                proprio=generator.normal(size=8).astype(np.float32),
                instruction="lift",
                episode_id=f"bench/{i}",
                step=0,
            )
            for i in range(batch)
        ]
        policy.act(observations)
        seconds = []
        for _ in range(arguments.inference_calls):
            started = time.perf_counter()
            policy.act(observations)
            seconds.append(time.perf_counter() - started)
        median, tail = statistics.median(seconds), float(np.quantile(seconds, 0.9))
        table.add_row(str(batch), f"{1000 * median:.2f}", f"{1000 * tail:.2f}", f"{batch / median:.0f}")
    console.print(table)


def largest_product_flops(device: torch.device) -> float:
    """What a product of two 8192² matrices reaches here [FLOP/s], in bfloat16 on a GPU (1024² in float32 on a CPU)."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    _wait(device)
    return 2 * size**3 / _seconds(lambda: a @ b, 10, device)


def _seconds(call: Callable[[], object], count: int, device: torch.device) -> float:
    """Mean time of one call."""
    _wait(device)
    started = time.perf_counter()
    for _ in range(count):
        call()
    _wait(device)
    return (time.perf_counter() - started) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()

"""The command line of `vla-train`, as a dataclass; tyro makes the flags of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tasks.interface import CAMERAS, ImageConvention
from tasks.suites import find_suite

NOT_THE_RESULT = (
    *("log_dir", "log_every", "save_every", "data_on_device", "data_path", "language_model"),
    *(
        "eval_every",
        "eval_suite",
        "eval_tasks",
        "eval_episodes",
        "eval_workers",
        "eval_device",
        "eval_gl",
        "eval_batch",
        "best_by",
    ),
)
"""Arguments that may differ when a run is resumed. What lies at data_path and language_model is compared by its contents."""


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Train VLA-VGGT on demonstrations. The same command on the same --log-dir resumes."""

    data_path: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=("--data",))]
    """HDF5 files of demonstrations (LIBERO's or robomimic's), decoded sets (`vla-collect --format cache`), LeRobot datasets (v3.0), or
    folders of one of these; on the Hugging Face hub hf://OWNER/NAME."""
    task_names: tuple[str, ...] = ()
    """Only these tasks: a group (pick_and_place), or a part of the task's name, the file's name or the instruction."""
    log_dir: Path = Path("logs")
    """The run's folder: checkpoints, best_model.pth, TensorBoard's files."""
    init_from: Path | None = None
    """Start from this policy's weights (a checkpoint, a run's folder or a .pth file): its shape, cameras and scaling are kept, and
    --preset does not count. Default: from nothing."""
    preset: Literal["base", "small", "compact", "tiny"] = "base"
    """Size of the model."""
    cameras: tuple[str, ...] = CAMERAS
    """Cameras the policy sees, in order."""
    chunk_steps: int | None = None
    """Actions per chunk. Default: the preset's."""
    neighbours: Literal[0, 4, 8] = 4
    """Neighbours of a patch in the image's graph. 0: no graph."""
    stem: Literal["patches", "convolutions"] | None = None
    """What makes a token of a patch: one matrix, or a few convolutions. Default: the preset's."""
    proprioception: bool = True
    """Whether the policy sees the robot's state."""
    image_px: int | None = None
    """Height and width of an image as the policy sees it, in whole patches. Default: the preset's."""
    execute_steps: int = 8
    """Actions of a chunk that an evaluation executes before it queries again, unless told otherwise; at most a whole chunk."""
    language_model: str = "Qwen/Qwen2-0.5B"
    """Hub id or folder of any transformers text model; frozen, used once per instruction. Or a file of features of instructions, as
    scripts/encode_instructions.py makes: no model is needed then."""
    language_layer: int = -1
    """Which of its hidden states; -1: the last."""
    finetune_language: Literal["none", "lora", "full"] = "none"
    """Train the language model too: what LoRA adds to its matrices, or all of it."""
    lora_rank: int = 16
    """Rank of what LoRA adds."""
    language_lr: float | None = None
    """Peak learning rate of the language model. Default: --lr with LoRA, a tenth of it for the whole model."""
    max_language_tokens: int = 31
    """Longest instruction the policy will take, in the language model's tokens (LIBERO's have at most 21 of Qwen2's)."""
    prompt_source: Literal["file_name", "recorded"] = "file_name"
    """Words of a LIBERO task's instruction: its file name's, as evaluation protocols use, or those in the demonstration file."""
    image_convention: ImageConvention = "rotated_180"
    """How the policy sees images. rotated_180: as in the openvla, openpi and lerobot protocols."""
    observation_timing: Literal["auto", "before", "after"] = "auto"
    """Whether obs[t] in the files was taken before or after actions[t]. auto: read off the numbers."""
    control_hz: float | None = None
    """A LeRobot dataset's rows per second, where its timestamps are wrong. Default: by the timestamps."""
    batch_size: int = 64
    """Samples per pass through the model, in each process."""
    accumulate: int = 1
    """Passes per step of the optimiser, in each process."""
    num_epochs: int = 100
    """Passes over the data."""
    max_steps: int | None = None
    """Stop after this many steps of the optimiser instead; the learning rate is planned for them."""
    lr: float = 1e-4
    """Peak learning rate."""
    warmup_fraction: float = 0.05
    """Part of the steps during which the learning rate rises."""
    weight_decay: float = 0.05
    """Of the matrices."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm."""
    ema_decay: float = 0.999
    """Of the moving average of the weights, which is what is evaluated."""
    augment: bool = True
    """Shift images and change their colours, on the device."""
    augment_shift: float = 0.04
    """Largest shift, as a part of an image's side. What is seen then stands up to so far beside where it is."""
    validation_fraction: float = 0.1
    """Part of each task's demonstrations that is held out."""
    seed: int = 0
    """Of the weights, the split, the order of samples and the augmentation."""
    save_every: int = 500
    """Steps between validations, each of which saves a checkpoint."""
    log_every: int = 20
    """Steps between entries in the log."""
    eval_every: int | None = None
    """Steps between evaluations by vla-eval, beside training, each of a checkpoint. Default: none."""
    eval_suite: tuple[str, ...] = ()
    """Suites to evaluate. Default: those of the demonstrations."""
    eval_tasks: tuple[str, ...] = ()
    """Only these tasks, by index or name. Default: all of the suites'."""
    eval_episodes: int = 5
    """Episodes per task, from the first official init state on."""
    eval_workers: str = "half"
    """Worker processes of the evaluation, which yield the CPU to training: auto, half or a number, as for vla-eval."""
    eval_device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the evaluated policy computes."""
    eval_gl: Literal["auto", "software", "egl", "osmesa"] = "software"
    """How the evaluation renders, as for vla-eval. By default in software, if it can, which leaves the GPU to training."""
    eval_batch: int = 1
    """Observations per call of the evaluated policy: so few come at a time that more would be padding."""
    best_by: Literal["loss", "success"] = "loss"
    """What makes a checkpoint the best: the lowest validation loss, or the highest success of those evaluated."""
    data_on_device: bool = False
    """Keep all images in the GPU's memory."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto: a GPU if there is one."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile. auto: on a GPU."""

    def __post_init__(self) -> None:
        self._check_numbers()
        if min(1 if self.eval_every is None else self.eval_every, self.eval_episodes, self.eval_batch) < 1:
            raise ValueError("--eval-every, --eval-episodes, --eval-batch: expected at least 1")
        if self.eval_every is None and (self.best_by == "success" or self.eval_suite or self.eval_tasks):
            raise ValueError("--eval-suite, --eval-tasks and --best-by success need evaluations: say --eval-every N")
        if self.eval_workers not in ("auto", "half") and not self.eval_workers.isdigit():
            raise ValueError(f"--eval-workers: expected auto, half or a number, got {self.eval_workers!r}")
        if self.finetune_language != "none" and self.language_model.endswith(".safetensors"):
            raise ValueError("--finetune-language needs a language model, --language-model names a file of features")
        for suite in self.eval_suite:
            find_suite(suite)
        if not self.data_path:
            raise ValueError("--data-path: name at least one HDF5 file, decoded set, LeRobot dataset or folder")

    def _check_numbers(self) -> None:
        for name in (
            "batch_size",
            "accumulate",
            "num_epochs",
            "save_every",
            "log_every",
            "execute_steps",
            "lora_rank",
            "max_language_tokens",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')}: expected at least 1, got {getattr(self, name)}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"--max-steps: expected at least 1, got {self.max_steps}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"--lr: expected a positive number, got {self.lr}")
        for name, bound in {"ema_decay": 1, "augment_shift": 0.5}.items():
            if not 0 <= getattr(self, name) < bound:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag}: expected at least 0 and below {bound}, got {getattr(self, name)}")
        if not 0 <= self.warmup_fraction <= 1:
            raise ValueError(f"--warmup-fraction: expected 0 to 1, got {self.warmup_fraction}")

"""The command line of `vla-collect`, as a dataclass; tyro makes the flags of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.policies.factory import VLA_VGGT


@dataclass(frozen=True, kw_only=True)
class CollectArguments:
    """Make demonstrations in LIBERO with a scripted expert, or have it correct a policy.

    `vla-collect --suite libero_spatial --output demos` writes 50 demonstrations of every task, as LIBERO's HDF5.
    """

    output: Path
    """Folder of the demonstrations and of the traces they are made from. The same command on the same folder resumes."""
    suite: tuple[str, ...] = ()
    """Suites to make demonstrations of, such as libero_spatial."""
    tasks: tuple[str, ...] = ()
    """Only these tasks, by index or name. Default: all of the suite's."""
    demos_per_task: int = 50
    """Demonstrations wanted of every task."""
    init: Literal["sampled", "official"] = "sampled"
    """sampled: init states drawn by LIBERO's own samplers. official: the 50 that evaluations use; never train on them unawares."""
    first_seed: int = 10_000
    """Sampled init states: the seed of the first; each attempt takes the next."""
    spread: float = 1.0
    """Sampled init states: how many times as wide as LIBERO's the regions are in which things are put on a table. Where they stand
    nearly always in the same place, a policy learns the place and does not look."""
    wide_share: float = 1.0
    """Sampled init states: the share of the attempts at a task that are spread so, evenly among them; the others are LIBERO's."""
    noise: float = 0.0
    """Strength of the disturbance (moved start, noise on actions, pushes, fingers that close by themselves); 1 is about one push in a
    demonstration."""
    misplaced: float = 0.0
    """Probability that what is put on a plate is put down beside its place at first, and taken again."""
    seed: int = 0
    """Seed of the disturbance, of the policy's noise and of who drives."""
    keep: Literal["auto", "successes", "all"] = "auto"
    """Which attempts become demonstrations. auto: successes, but all of them when a policy drives."""
    checkpoint: Path | None = None
    """A policy's checkpoint: it drives, with --relabel."""
    policy: str = VLA_VGGT
    """What loads the checkpoint: vla-vggt, or a Python factory as module:name."""
    relabel: Literal["none", "expert"] = "none"
    """expert: record the expert's action for every state that the policy visits (DAgger)."""
    expert_share: float = 0.3
    """With --relabel: how often the expert drives, drawn anew every 10 steps."""
    protocol: str = "openvla"
    """openvla, openpi, lerobot or libero: settling, horizon, and the size and convention of what a policy that drives sees."""
    size: int = 256
    """Height and width of the demonstrations' images, in pixels. LIBERO's own have 128."""
    stage: Literal["all", "traces", "images"] = "all"
    """traces: simulate only. images: render a folder of traces, perhaps on another machine; only --output, --size, --format,
    --image-every and --workers count."""
    format: Literal["hdf5", "lerobot", "cache"] = "hdf5"
    """hdf5: LIBERO's layout, one file per task. lerobot: a LeRobot v3 dataset per suite beside it, SUITE_lerobot. cache: a folder per
    suite, SUITE_cache, which vla-train maps into memory as it is, and no HDF5."""
    image_every: int = 1
    """With --format cache: draw every second, third, … step only. Steps one after the other look alike: for the same time more
    demonstrations can be drawn. Actions and states are kept of all steps."""
    workers: str = "auto"
    """Worker processes. auto: by cores and memory. 0: in this process, for a debugger (traces only)."""
    max_errors: int = 10
    """Stop when more episodes than this ended in an error."""
    worker_timeout_s: float = 600.0
    """Replace a worker that gives no answer for this long."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where a policy that drives computes. auto: on a GPU if there is one."""
    language_model: str = ""
    """Hub id or folder of the checkpoint's language model, for instructions it was not trained on."""
    mujoco_gl: Literal["auto", "egl", "osmesa"] = "auto"
    """How images are rendered. auto: EGL on a GPU, else in software."""

    @property
    def keeps_failures(self) -> bool:
        """Whether failed attempts become demonstrations too."""
        return self.keep == "all" or (self.keep == "auto" and self.relabel == "expert")

    def check(self) -> None:
        """Refuse what the flags cannot mean.

        Raises:
            ValueError: a value is out of range, or two flags contradict each other.
        """
        if self.demos_per_task < 1:
            raise ValueError(f"--demos-per-task: expected at least 1, got {self.demos_per_task}")
        if not 0.0 <= self.noise <= 3.0:
            raise ValueError(
                f"--noise: expected 0 (none) to 3, got {self.noise}; 1 is about one push in a demonstration"
            )
        if not 0.0 <= self.misplaced <= 1.0:
            raise ValueError(f"--misplaced: expected a probability, 0 to 1, got {self.misplaced:g}")
        if self.misplaced > 0.0 and self.relabel == "expert":
            raise ValueError(
                "--misplaced: only the expert is led astray, and with --relabel a policy drives; leave one out"
            )
        if not 0.0 <= self.expert_share <= 1.0:
            raise ValueError(f"--expert-share: expected 0 to 1, got {self.expert_share}")
        if not 16 <= self.size <= 1024:
            raise ValueError(f"--size: expected 16 to 1024 pixels, got {self.size}")
        if self.image_every < 1 or (self.image_every > 1 and self.format != "cache"):
            raise ValueError(
                f"--image-every: expected at least 1, and above 1 only with --format cache, got {self.image_every} with "
                f"--format {self.format}"
            )
        if self.first_seed < 0:
            raise ValueError(f"--first-seed: expected 0 or more, got {self.first_seed}")
        if not 0.0 <= self.spread <= 5.0 or (self.spread != 1.0 and self.init == "official"):
            raise ValueError(
                f"--spread: expected 0 (everything in the middle) to 5 times as wide, and 1 with --init official, got {self.spread:g}"
            )
        if not 0.0 <= self.wide_share <= 1.0 or (self.wide_share != 1.0 and self.spread == 1.0):
            raise ValueError(
                f"--wide-share: expected a share, 0 to 1, of a --spread that is not 1, got {self.wide_share:g} with --spread "
                f"{self.spread:g}"
            )
        if (self.checkpoint is None) != (self.relabel == "none"):
            raise ValueError(
                "--checkpoint and --relabel expert belong together: the checkpoint drives, the expert says what it should have done"
            )
        if self.checkpoint is not None and not self.checkpoint.exists():
            raise FileNotFoundError(f"no checkpoint at {self.checkpoint}")

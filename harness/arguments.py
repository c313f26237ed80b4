"""The command line of `vla-eval`, as a dataclass; tyro makes the flags of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.policies.factory import VLA_VGGT
from results.video import VideoChoice
from tasks.interface import EnsembleSpec, OpenLoopSpec, TemporalEnsembleSpec


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Evaluate a policy in LIBERO: a success rate per task and suite, with 95 % intervals.

    `vla-eval --suite libero_spatial` alone evaluates the whole suite with the default policy.
    """

    suite: tuple[str, ...] = ()
    """Suites to evaluate, such as libero_spatial libero_object. `--list` shows all."""
    tasks: tuple[str, ...] = ()
    """Only these tasks, by index or name. Default: all of the suite's."""
    episodes: int | None = None
    """Episodes per task: the first official init states. Default: as many as the protocol says (50)."""
    repeats: int = 1
    """Episodes from every init state, with noise of their own for a policy that has any. The intervals know that they are alike."""
    only: tuple[str, ...] = ()
    """Only these episodes, by id, such as libero_spatial/03/07/r0."""
    policy: str = "auto"
    """auto (vla-vggt, with the checkpoint that ships where none is named), expert (scripted), zero, random, replay:PATH (a run
    directory or a LIBERO HDF5 file), a server that speaks openpi's protocol as ws://HOST:PORT, or a Python factory as module:name."""
    checkpoint: Path | None = None
    """What `vla-train` made: a checkpoint, a run's folder (the best in it), best_model.pth. Default: one that ships with the package,
    for the suites it was trained on. With a factory: whatever it takes."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the policy computes. auto: on a GPU if there is one."""
    language_model: str = ""
    """Hub id or folder of the checkpoint's language model, for instructions it was not trained on. Default: as in training."""
    policy_batch: int | None = None
    """Observations per call of the policy. Default: the policy's choice (VLA-VGGT: 16 on a GPU, 1 on a CPU)."""
    protocol: str = "openvla"
    """openvla, openpi, lerobot or libero: settling, horizon, image convention, fixture poses."""
    seed: int = 0
    """Seed of the policy's noise. The simulator's seeds belong to the protocol."""
    ensemble: Literal["recommended", "open-loop", "temporal"] = "recommended"
    """How chunks become actions. recommended: what the policy says."""
    execute_steps: int | None = None
    """Open loop: actions of a chunk to execute before the next query. Default: the whole chunk."""
    ensemble_decay: float | None = None
    """Temporal ensembling: weights exp(-decay i), i = 0 the oldest chunk. Default: 0.01."""
    query_every: int | None = None
    """Temporal ensembling: control steps between queries. Default: 1."""
    workers: str = "auto"
    """Worker processes. auto: by cores and memory. half: half of that. 0: in this process, for a debugger."""
    max_errors: int = 10
    """Stop when more episodes than this ended in an error."""
    worker_timeout_s: float = 300.0
    """Replace a worker that gives no answer for this long."""
    server_timeout_s: float = 300.0
    """A policy server: longest wait for a reply, or for a server that went away to come back."""
    output_dir: Path | None = None
    """The run's folder. Default: runs/DATE-TIME-SUITE-POLICY. The same command on the same folder resumes the run."""
    retry_errors: bool = True
    """When resuming, run episodes that ended in an error again."""
    shard: str = ""
    """Run the i-th of n parts of the plan, as i/n, each with an --output-dir of its own; --merge joins them."""
    merge: tuple[Path, ...] = ()
    """Join the folders of all shards into --output-dir, and exit."""
    videos: VideoChoice = "some"
    """Videos to render after the run, from the traces. some: two failures and one success per task."""
    video_size: int = 256
    """Height and width of each camera's picture in a video, in pixels."""
    video_view: Literal["true", "policy"] = "true"
    """true: as a person at the camera sees it. policy: the observations as the policy got them."""
    render: Path | None = None
    """Render videos of this finished run, --only those named or those --videos says, and exit."""
    mujoco_gl: Literal["auto", "software", "egl", "osmesa"] = "auto"
    """How images are rendered. auto: EGL on a GPU, else in software. software: by OSMesa if it is there, which leaves the GPU free."""
    list: bool = False
    """Show suites and tasks, and exit."""

    @property
    def policy_name(self) -> str:
        """The policy's name, `auto` resolved."""
        if self.policy != "auto":
            return self.policy
        return VLA_VGGT

    def ensemble_spec(self, recommended: EnsembleSpec) -> EnsembleSpec:
        """How chunks are executed.

        Raises:
            ValueError: flags that contradict each other.
        """
        if self.ensemble == "temporal":
            if self.execute_steps is not None:
                raise ValueError("--execute-steps is for open loop; with --ensemble temporal use --query-every")
            return TemporalEnsembleSpec(
                decay=0.01 if self.ensemble_decay is None else self.ensemble_decay,
                query_every=1 if self.query_every is None else self.query_every,
            )
        if self.ensemble_decay is not None or self.query_every is not None:
            raise ValueError("--ensemble-decay and --query-every are for --ensemble temporal")
        if self.ensemble == "recommended" and self.execute_steps is None:
            return recommended
        return OpenLoopSpec(execute_steps=self.execute_steps)

    def refuse_execution_flags(self, why: str) -> None:
        """For policies whose actions are executed in one way only.

        Raises:
            ValueError: a flag about the execution of chunks was given.
        """
        given = (self.execute_steps, self.ensemble_decay, self.query_every)
        if self.ensemble != "recommended" or any(value is not None for value in given):
            raise ValueError(f"--ensemble, --execute-steps, --ensemble-decay and --query-every do not apply: {why}")

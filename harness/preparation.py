"""Everything `vla-eval` decides and checks before the first episode."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness.arguments import EvalArguments
from harness.drawing import NOTHING_DRAWN, Drawing, find_drawing
from harness.expert.planner import check_supported
from harness.machine import check_workers, count_workers
from harness.policies.factory import REPLAY, PolicyNameError, is_server_address, make_policy
from harness.policies.remote import RemotePolicy
from harness.policies.replay import Recording, ReplayPolicy, load_recording
from harness.run_manifest import describe_run
from harness.sim.settings import RolloutSettings
from results.manifest import RunManifest
from results.run_directory import RunDirectory
from results.video import LARGEST_PX, SMALLEST_PX
from tasks.interface import OpenLoopSpec, Policy, PolicyNeeds
from tasks.plan import Plan, plan_official
from tasks.protocols import PROTOCOLS, Protocol, find_protocol
from tasks.suites import SUITES, UnknownTaskError, select_tasks

PRIVILEGED_NEEDS = PolicyNeeds(cameras=(), image_convention=None, batch_size=1, ensemble=OpenLoopSpec())


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A run, ready to go."""

    plan: Plan
    policy: Policy | None
    """None: a worker policy."""
    needs: PolicyNeeds
    recording: Recording | None
    drawn: Drawing
    workers: int
    settings: RolloutSettings
    run: RunDirectory
    manifest: RunManifest

    def close(self) -> None:
        """Let other processes into the folder, hang up on a policy server."""
        if isinstance(self.policy, RemotePolicy):
            self.policy.close()
        self.run.remove_temporaries()
        self.run.release()


def prepare_evaluation(arguments: EvalArguments) -> Evaluation:
    """Decide everything and check every input, the cheap things first: loading a policy may take minutes.

    Raises:
        ValueError: an input is wrong; the message says which and what to do.
        FileNotFoundError: there is no such checkpoint.
        GlError: images are needed and cannot be rendered.
    """
    check_workers(arguments.workers)
    check_video_flags(arguments)
    recording = _recording(arguments)
    whole = _plan(arguments, recording)
    plan = whole.shard(arguments.shard) if arguments.shard else whole
    if arguments.checkpoint is not None and not arguments.checkpoint.exists():
        raise FileNotFoundError(f"no checkpoint at {arguments.checkpoint}")
    with contextlib.ExitStack() as undo:
        run_dir = RunDirectory.reserve(arguments.output_dir or default_run_dir(arguments, plan))
        undo.callback(run_dir.release)
        policy = _policy(arguments, recording, whole)
        if isinstance(policy, RemotePolicy):
            undo.callback(policy.close)
        needs = policy.needs if policy is not None else PRIVILEGED_NEEDS
        check_images(needs, plan.protocol)
        if arguments.video_view == "policy" and arguments.videos != "none" and not needs.cameras:
            raise ValueError("--video-view policy: this policy sees no images; leave it at true")
        ensemble = arguments.ensemble_spec(needs.ensemble)
        drawn = find_drawing(arguments.mujoco_gl) if needs.cameras else NOTHING_DRAWN
        undo.pop_all()
    settings = RolloutSettings(
        protocol=plan.protocol.name,
        cameras=needs.cameras,
        image_convention=needs.image_convention or plan.protocol.image_convention,
        ensemble=ensemble,
        worker_policy="expert" if policy is None else "",
        recorded_steps={} if recording is None else {key: len(done) for key, done in recording.actions.items()},
        run_dir=run_dir.path.resolve(),
    )
    manifest = describe_run(
        whole=whole,
        shard=arguments.shard,
        planned_episodes=Counter(str(spec.task) for spec in plan.episodes),
        policy=policy,
        policy_name=arguments.policy_name,
        policy_metadata=policy.metadata if isinstance(policy, RemotePolicy) else {},
        checkpoint=arguments.checkpoint,
        seed=arguments.seed,
        settings=settings,
        drawn=drawn,
    )
    return Evaluation(
        plan=plan,
        policy=policy,
        needs=needs,
        recording=recording,
        drawn=drawn,
        workers=count_workers(arguments.workers, on_gpu=drawn.on_gpu),
        settings=settings,
        run=run_dir,
        manifest=manifest,
    )


def check_images(needs: PolicyNeeds, protocol: Protocol) -> None:
    """Refuse a protocol whose images are too small for the policy.

    Raises:
        ValueError: they are; the message names the protocols that will do.
    """
    if needs.cameras and protocol.render_size_px < needs.min_image_px:
        enough = [name for name, other in PROTOCOLS.items() if other.render_size_px >= needs.min_image_px]
        raise ValueError(
            f"the policy needs images of at least {needs.min_image_px} px, the protocol {protocol.name!r} renders "
            f"{protocol.render_size_px}. Protocols that will do: {', '.join(enough) or 'none'}"
        )


def check_video_flags(arguments: EvalArguments) -> None:
    """Refuse a size no video can have.

    Raises:
        ValueError: it is too small or too large.
    """
    if not SMALLEST_PX <= arguments.video_size <= LARGEST_PX:
        raise ValueError(f"--video-size: expected {SMALLEST_PX} to {LARGEST_PX} pixels, got {arguments.video_size}")


def default_run_dir(arguments: EvalArguments, plan: Plan) -> Path:
    """runs/DATE-TIME-SUITE-POLICY below the working directory."""
    suites = dict.fromkeys(spec.task.suite for spec in plan.episodes)
    policy = "replay" if arguments.policy_name.startswith(REPLAY) else re.sub(r"[^\w.]+", "-", arguments.policy_name)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    shard = f"-shard{arguments.shard.replace('/', 'of')}" if arguments.shard else ""
    return Path("runs") / f"{stamp}-{'+'.join(suites)}-{policy}{shard}"


def _recording(arguments: EvalArguments) -> Recording | None:
    """What `--policy replay:PATH` replays."""
    if not arguments.policy_name.startswith(REPLAY):
        return None
    arguments.refuse_execution_flags("a replay executes every recorded action")
    if arguments.checkpoint is not None:
        raise PolicyNameError("--checkpoint does not apply: a replay takes its actions from the recording")
    path = Path(arguments.policy_name.removeprefix(REPLAY))
    return load_recording(path, find_protocol(arguments.protocol), arguments.suite)


def _plan(arguments: EvalArguments, recording: Recording | None) -> Plan:
    if recording is not None:
        if arguments.repeats != 1:
            raise ValueError("--repeats does not apply to a replay: it would come out the same")
        plan = _restrict(recording.plan, arguments)
    else:
        suites = dict.fromkeys(arguments.suite or [episode_id.split("/")[0] for episode_id in arguments.only])
        if not suites:
            raise UnknownTaskError(
                f"name at least one suite, such as --suite libero_spatial. Valid suites: {', '.join(SUITES)}"
            )
        tasks = [task for suite in suites for task in select_tasks(suite, arguments.tasks)]
        protocol = find_protocol(arguments.protocol)
        plan = plan_official(tasks, protocol, episodes=arguments.episodes, repeats=arguments.repeats)
    return plan.only(arguments.only) if arguments.only else plan


def _restrict(plan: Plan, arguments: EvalArguments) -> Plan:
    """The recorded episodes that the flags name."""
    chosen = {
        (task.suite, task.index)
        for suite in arguments.suite or {spec.task.suite for spec in plan.episodes}
        for task in select_tasks(suite, arguments.tasks)
    }
    counts: Counter[str] = Counter()
    episodes = []
    for spec in plan.episodes:
        counts[str(spec.task)] += 1
        within = arguments.episodes is None or counts[str(spec.task)] <= arguments.episodes
        if (spec.task.suite, spec.task.index) in chosen and within:
            episodes.append(spec)
    if not episodes:
        raise UnknownTaskError("the recording has no episode of the suites and tasks asked for")
    return Plan(protocol=plan.protocol, episodes=tuple(episodes))


def _policy(arguments: EvalArguments, recording: Recording | None, plan: Plan) -> Policy | None:
    """The policy; None for the expert, which runs inside the workers."""
    if arguments.policy_batch is not None and (
        recording is not None or arguments.policy_name == "expert" or is_server_address(arguments.policy_name)
    ):
        raise PolicyNameError(f"--policy-batch does not apply to {arguments.policy_name}")
    if arguments.policy_batch is not None and arguments.policy_batch < 1:
        raise PolicyNameError(f"--policy-batch: expected at least 1, got {arguments.policy_batch}")
    if recording is not None:
        return ReplayPolicy(recording.actions)
    if is_server_address(arguments.policy_name):
        if arguments.checkpoint is not None:
            raise PolicyNameError("--checkpoint does not apply: the policy server has loaded its own")
        return RemotePolicy(arguments.policy_name, timeout_s=arguments.server_timeout_s)
    if arguments.policy_name != "expert":
        return make_policy(
            arguments.policy_name,
            checkpoint=arguments.checkpoint,
            seed=arguments.seed,
            device=arguments.device,
            language_model=arguments.language_model,
            batch_size=arguments.policy_batch,
            instructions=tuple(dict.fromkeys(plan.protocol.instruction(spec.task) for spec in plan.episodes)),
        )
    arguments.refuse_execution_flags("the expert decides on every action anew")
    if arguments.checkpoint is not None:
        raise PolicyNameError(
            "--checkpoint needs a --policy that loads it, as module:name; the scripted expert loads none"
        )
    for suite in dict.fromkeys(arguments.suite or [episode_id.split("/")[0] for episode_id in arguments.only]):
        for task in select_tasks(suite, arguments.tasks):
            check_supported(task)
    return None

"""Everything `vla-collect` decides and checks before the first episode."""

from __future__ import annotations

import contextlib
import datetime
import sys
from dataclasses import asdict

from harness.collecting.arguments import CollectArguments
from harness.collecting.attempts import Attempts, due
from harness.expert.planner import check_supported
from harness.machine import check_workers, count_workers
from harness.policies.factory import checkpoint_fingerprint, make_policy, policy_code_sha256
from harness.preparation import NOTHING_DRAWN, PRIVILEGED_NEEDS, Drawing, Evaluation, check_images, drawing
from harness.sim.settings import Demonstrating, RolloutSettings
from harness.sim.subprocess_environment import PACKAGE_ROOT
from results.manifest import MANIFEST_VERSION, RunManifest, git_revision, installed_versions, machine_name
from results.run_directory import RunDirectory
from tasks.interface import Policy
from tasks.plan import Plan
from tasks.protocols import find_protocol
from tasks.suites import SUITES, UnknownTaskError, select_tasks


def prepare_collection(arguments: CollectArguments) -> tuple[Evaluation, list[Attempts]]:
    """The run, and what is attempted in it.

    Raises:
        ValueError: an input is wrong; the message says which and what to do.
        FileNotFoundError: there is no such checkpoint.
        GlError: a policy drives, its images are needed and cannot be rendered.
    """
    arguments.check()
    check_workers(arguments.workers)
    protocol = find_protocol(arguments.protocol)
    if not arguments.suite:
        raise UnknownTaskError(
            f"name at least one suite, such as --suite libero_spatial. Valid suites: {', '.join(SUITES)}"
        )
    tasks = [task for suite in dict.fromkeys(arguments.suite) for task in select_tasks(suite, arguments.tasks)]
    for task in tasks:
        check_supported(task)
    attempts = [Attempts(task, protocol, arguments) for task in tasks]
    plan = Plan(protocol=protocol, episodes=tuple(due(attempts, {})))
    with contextlib.ExitStack() as undo:
        run = RunDirectory.reserve(arguments.output)
        undo.callback(run.release)
        policy = _driver(arguments, plan)
        needs = PRIVILEGED_NEEDS if policy is None else policy.needs
        check_images(needs, protocol)
        drawn = drawing(arguments.mujoco_gl) if needs.cameras else NOTHING_DRAWN
        undo.pop_all()
    demonstrating = Demonstrating(
        noise=arguments.noise, expert_share=1.0 if policy is None else arguments.expert_share, seed=arguments.seed
    )
    settings = RolloutSettings(
        protocol=protocol.name,
        cameras=needs.cameras,
        image_convention=needs.image_convention or protocol.image_convention,
        ensemble=needs.ensemble,
        worker_policy="",
        demonstrating=demonstrating,
        run_dir=run.path.resolve(),
    )
    manifest = _manifest(arguments, plan, policy, settings, drawn)
    evaluation = Evaluation(
        plan=plan,
        policy=policy,
        needs=needs,
        recording=None,
        backend=drawn.backend,
        egl_devices=drawn.egl_devices,
        renderer=drawn.renderer,
        workers=count_workers(arguments.workers, on_gpu=drawn.on_gpu),
        settings=settings,
        run=run,
        manifest=manifest,
    )
    return evaluation, attempts


def _driver(arguments: CollectArguments, plan: Plan) -> Policy | None:
    """The policy that drives; None: the expert does."""
    if arguments.checkpoint is None:
        return None
    return make_policy(
        arguments.policy,
        checkpoint=arguments.checkpoint,
        seed=arguments.seed,
        device=arguments.device,
        language_model=arguments.language_model,
        instructions=tuple(dict.fromkeys(plan.protocol.instruction(spec.task) for spec in plan.episodes)),
    )


def _manifest(
    arguments: CollectArguments, plan: Plan, policy: Policy | None, settings: RolloutSettings, drawn: Drawing
) -> RunManifest:
    protocol, demonstrating = plan.protocol, settings.demonstrating
    assert demonstrating is not None
    tasks = list(dict.fromkeys(spec.task for spec in plan.episodes))
    return RunManifest(
        version=MANIFEST_VERSION,
        plan_sha256=plan.sha256,
        shard="",
        planned_episodes={str(task): arguments.demos_per_task for task in tasks},
        protocol=asdict(protocol),
        instructions={str(task): protocol.instruction(task) for task in tasks},
        cameras=settings.cameras,
        image_convention=settings.image_convention,
        policy="expert" if policy is None else arguments.policy,
        policy_code_sha256="" if policy is None else policy_code_sha256(arguments.policy),
        checkpoint=str(arguments.checkpoint or ""),
        checkpoint_sha256=checkpoint_fingerprint(policy, arguments.checkpoint),
        policy_metadata={"demonstrations": {**asdict(demonstrating), "keeps_failures": arguments.keeps_failures}},
        dtype=str(getattr(policy, "dtype", "not stated")),
        ensemble="one action per step" if policy is None else str(settings.ensemble),
        seed=arguments.seed,
        batch_size=1 if policy is None else policy.needs.batch_size,
        versions=installed_versions(),
        renderer=drawn.renderer,
        egl_devices=drawn.egl_devices,
        git_revision=git_revision(PACKAGE_ROOT),
        command_line=sys.argv,
        machine=machine_name(),
        started_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )

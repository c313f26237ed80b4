"""Everything `vla-collect` decides and checks before the first episode."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

from harness.collecting.arguments import CollectArguments
from harness.collecting.attempts import Attempts, Queue
from harness.drawing import NOTHING_DRAWN, find_drawing
from harness.expert.planner import check_supported
from harness.machine import check_workers, count_workers
from harness.policies.factory import make_policy
from harness.preparation import PRIVILEGED_NEEDS, Evaluation, check_images
from harness.run_manifest import describe_run
from harness.sim.settings import Demonstrating, RolloutSettings
from results.run_directory import RunDirectory
from tasks.interface import Policy, TaskSpec
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
    tasks = _tasks(arguments)
    attempts = [Attempts(task, protocol, arguments) for task in tasks]
    plan = Plan(protocol=protocol, episodes=tuple(Queue(attempts, {}).first))
    with contextlib.ExitStack() as undo:
        run = RunDirectory.reserve(arguments.output)
        undo.callback(run.release)
        policy = _driver(arguments, plan)
        needs = PRIVILEGED_NEEDS if policy is None else policy.needs
        check_images(needs, protocol)
        drawn = find_drawing(arguments.mujoco_gl) if needs.cameras else NOTHING_DRAWN
        undo.pop_all()
    demonstrating = Demonstrating(
        noise=arguments.noise,
        misplaced=arguments.misplaced,
        expert_share=1.0 if policy is None else arguments.expert_share,
        seed=arguments.seed,
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
    manifest = describe_run(
        whole=plan,
        shard="",
        planned_episodes={str(task): arguments.demos_per_task for task in tasks},
        policy=policy,
        policy_name="expert" if policy is None else arguments.policy,
        policy_metadata={"demonstrations": _described(arguments, demonstrating)},
        checkpoint=arguments.checkpoint,
        seed=arguments.seed,
        settings=settings,
        drawn=drawn,
    )
    evaluation = Evaluation(
        plan=plan,
        policy=policy,
        needs=needs,
        recording=None,
        drawn=drawn,
        workers=count_workers(arguments.workers, on_gpu=drawn.on_gpu),
        settings=settings,
        run=run,
        manifest=manifest,
    )
    return evaluation, attempts


def _described(arguments: CollectArguments, demonstrating: Demonstrating) -> dict[str, Any]:
    """How demonstrations are made; the usual spread is left out, and that nothing is misplaced, as before there was another."""
    described = {
        **asdict(demonstrating),
        "keeps_failures": arguments.keeps_failures,
        "spread": arguments.spread,
        "wide_share": arguments.wide_share,
    }
    usual = {"spread": 1.0, "wide_share": 1.0, "misplaced": 0.0}
    return {name: value for name, value in described.items() if name not in usual or value != usual[name]}


def _tasks(arguments: CollectArguments) -> list[TaskSpec]:
    """What is demonstrated; all of it the expert can do."""
    if not arguments.suite:
        raise UnknownTaskError(
            f"name at least one suite, such as --suite libero_spatial. Valid suites: {', '.join(SUITES)}"
        )
    tasks = [task for suite in dict.fromkeys(arguments.suite) for task in select_tasks(suite, arguments.tasks)]
    for task in tasks:
        check_supported(task)
    return tasks


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

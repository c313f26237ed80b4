"""Finds a policy by name, or makes one with a Python factory the user names."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.policies.simple import RandomPolicy, ZeroPolicy
from results.manifest import path_sha256
from tasks.interface import Policy

VLA_VGGT = "vla-vggt"
FACTORIES = {VLA_VGGT: "vla_vggt.policy:load"}
"""Policies that come with the project and are made as a user's are: name → factory. They say themselves what is wrong."""
REPLAY = "replay:"
SERVER = ("ws://", "wss://")
NO_FACTORY = (REPLAY, *SERVER)
"""Names that begin so have a colon and are no `module:name`."""
BUILT_IN = (VLA_VGGT, "expert", "zero", "random", f"{REPLAY}PATH", "ws://HOST:PORT")


class PolicyNameError(ValueError):
    """`--policy` or `--checkpoint` does not lead to a policy."""


def is_server_address(name: str) -> bool:
    """Whether `--policy NAME` means a server."""
    return name.startswith(SERVER)


def make_policy(
    name: str,
    *,
    checkpoint: Path | None,
    seed: int,
    device: str = "auto",
    language_model: str = "",
    instructions: Sequence[str] = (),
    batch_size: int | None = None,
) -> Policy:
    """The policy called `name`: `vla-vggt`, `zero`, `random`, or a factory `module:name`.

    A factory is a callable that returns a `tasks.interface.Policy`. It is given, by keyword, those of
    `checkpoint` (a Path or None), `seed` (int), `device` (auto, cuda or cpu), `language_model` (a hub id or folder; empty: the
    policy's own choice), `instructions` (all prompts of the plan; none where they are not known) and `batch_size` (observations
    per call, which its `needs` then say; None: the policy's own choice) that its signature names.

    Raises:
        PolicyNameError: nothing of that name can be found, it makes no policy, or it does not take what was given for it.
        ValueError: as VLA-VGGT raises it: there is no whole checkpoint, or no such device.
    """
    offered = {
        "checkpoint": checkpoint,
        "seed": seed,
        "device": device,
        "language_model": language_model,
        "instructions": instructions,
        "batch_size": batch_size,
    }
    if name in FACTORIES:
        factory = _find_factory(FACTORIES[name])
        return factory(**_accepted(factory, name, offered))  # type: ignore[no-any-return]
    if checkpoint is not None and ":" not in name:
        raise PolicyNameError(
            f"--checkpoint is for policies that load one; the policy {name!r} does not. Name a factory: --policy module:name"
        )
    if batch_size is not None and ":" not in name:
        raise PolicyNameError(f"--policy-batch is for policies that compute in batches; {name!r} does not")
    if name == "zero":
        return ZeroPolicy()
    if name == "random":
        return RandomPolicy(seed=seed)
    if ":" not in name:
        raise PolicyNameError(
            f"unknown policy {name!r}; expected one of {', '.join(BUILT_IN)}, or a factory as module:name"
        )
    policy = _call(_find_factory(name), name, offered)
    missing = [part for part in ("needs", "start", "act", "finish") if not hasattr(policy, part)]
    if missing:
        raise PolicyNameError(
            f"{name} returned {type(policy).__name__}, which is no policy: it lacks {', '.join(missing)}. "
            "See tasks.interface.Policy."
        )
    return policy  # type: ignore[no-any-return]


def checkpoint_fingerprint(policy: Policy | None, checkpoint: Path | None) -> str:
    """Hash of what the policy loaded, if it says, else of the file or folder named; empty without one."""
    said = getattr(policy, "checkpoint_sha256", "")
    return said or (path_sha256(checkpoint) if checkpoint is not None else "")


def policy_code_sha256(name: str) -> str:
    """Hash of the source file that a factory `module:name` lies in; empty where `--policy` names none.

    What the file imports is not in the hash.
    """
    if ":" not in name or name.startswith(NO_FACTORY):
        return ""
    try:
        file = inspect.getsourcefile(importlib.import_module(name.partition(":")[0]))
    except (ImportError, TypeError):
        return ""  # a module without a file, such as one written in C
    return path_sha256(Path(file)) if file and Path(file).is_file() else ""


def _find_factory(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    working_directory = os.getcwd()
    if working_directory not in sys.path:
        sys.path.append(working_directory)  # last: a file there must not shadow an installed package
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; something it imports is not
        raise PolicyNameError(
            f"--policy {name}: there is no module {module_name!r}, neither installed nor below {working_directory}"
        ) from error
    if not callable(factory := getattr(module, attribute, None)):
        public = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise PolicyNameError(
            f"--policy {name}: {module_name} has no callable {attribute!r}; it has {', '.join(public) or 'none'}"
        )
    return factory


def _accepted(factory: Any, name: str, offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the offered arguments that the factory takes.

    Raises:
        PolicyNameError: it does not take one that the user gave.
    """
    parameters = inspect.signature(factory).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    given = {key: value for key, value in offered.items() if takes_all or key in parameters}
    for key, unset in (("checkpoint", None), ("device", "auto"), ("language_model", ""), ("batch_size", None)):
        if offered[key] != unset and key not in given:
            flag = "--policy-batch" if key == "batch_size" else f"--{key.replace('_', '-')}"
            raise PolicyNameError(f"{flag} was given, but the factory {name} has no parameter `{key}`")
    return given


def _call(factory: Any, name: str, offered: dict[str, Any]) -> Any:
    given = _accepted(factory, name, offered)
    try:
        return factory(**given)
    except Exception as error:
        raise PolicyNameError(
            f"the factory {name} raised {type(error).__name__}: {error}\n{traceback.format_exc()}"
        ) from error

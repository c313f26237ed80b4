"""Who may import whom: the arrows between packages, and where heavy libraries may be touched."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "tasks": {"tasks"},
    "results": {"results", "tasks"},
    "vla_vggt": {"vla_vggt", "tasks"},
    "harness": {"harness", "tasks", "results"},
}
SIMULATOR = {"mujoco", "robosuite", "libero", "OpenGL"}


def imports(file: Path) -> Iterator[str]:
    """The top-level package of every import in a file, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [node.module or ""]
        yield from (name.split(".")[0] for name in names)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_only_the_allowed_arrows(package: str) -> None:
    ours = set(ALLOWED) | {"tests", "scripts"}
    for file in modules(package):
        if file.name in ("cli.py", "__main__.py"):
            continue
        for name in imports(file):
            assert name not in ours or name in ALLOWED[package], f"{file.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("package", ALLOWED)
def test_torch_only_in_the_model_and_in_commands(package: str) -> None:
    for file in modules(package):
        if package != "vla_vggt" and file.name != "cli.py":
            assert "torch" not in set(imports(file)), file


@pytest.mark.parametrize("package", ALLOWED)
def test_the_simulator_only_in_harness_sim(package: str) -> None:
    for file in modules(package):
        if (ROOT / "harness" / "sim") not in file.parents:
            assert not SIMULATOR & set(imports(file)), file


def test_every_package_is_seen() -> None:
    assert all(modules(package) for package in ALLOWED)

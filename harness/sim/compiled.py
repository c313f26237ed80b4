"""Compiling functions, with machine code kept for the next process until any source it is made from changes.

numba keeps machine code too, but compares only the source of the function that is called: an edit of, or an upgrade that touches,
one that it calls in another file goes unnoticed. So here the folder is named by all of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba import types

from harness.machine import usable_cores
from harness.sim.stack import control_utils, transform_utils
from harness.sim.subprocess_environment import package_environment
from tasks.cache_folder import cache_folder

_Function = TypeVar("_Function", bound=Callable[..., object])
_PREFIX = "compiled-"
_DECORATED = re.compile(r"^@(compiled|inlined|allocating)$", re.MULTILINE)


def compiled(function: _Function) -> _Function:
    """numba's `njit` of a function that makes and returns no arrays: it counts no references, which takes half as long again.

    A division by zero gives what IEEE 754 says, as in C and numpy. A decorated function may use constants and functions of this
    package's modules, of robosuite's `control_utils` and `transform_utils`, and of numpy.
    """
    return _compiled(function, _nrt=False)


def inlined(function: _Function) -> _Function:
    """As `compiled`, and made part of what calls it: the arrays of a large tuple are not handed over one by one."""
    return _compiled(function, _nrt=False, forceinline=True)


def allocating(function: _Function) -> _Function:
    """As `compiled`, for a function that makes or returns arrays."""
    return _compiled(function, _nrt=True)


def _compiled(function: _Function, **options: bool) -> _Function:
    config: Any = numba.config
    before, config.CACHE_DIR = config.CACHE_DIR, str(_FOLDER)
    try:
        njit: Any = numba.njit
        return cast("_Function", njit(cache=True, error_model="numpy", **options)(function))
    finally:
        config.CACHE_DIR = before


def compile_part(function: Any) -> Any:
    """Compile a function of three integers; numba's compiled one of these."""
    kinds = (types.int64,) * 3
    function.compile(kinds)
    return function.overloads[kinds]


def keep_in(folder: Path) -> None:
    """Where functions that are decorated from now on keep their machine code."""
    global _FOLDER  # noqa: PLW0603 (decorators have no arguments)
    _FOLDER = folder


class Compilation:
    """Compiling takes a minute of a core: of processes that start together, one does it, and the others wait.

    Args:
        name: of what is compiled.
        parts: functions of three integers that are used, and take the most of it. They are compiled at once, in processes of
            their own, as many as there are cores.
    """

    def __init__(self, name: str, parts: tuple[Callable[..., object], ...] = ()) -> None:
        self._name = name
        self._parts = parts
        self.over = False

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Around each use of compiled functions until `finish`."""
        if self.over or self._marker.exists():
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                stream = stack.enter_context((_FOLDER / f"{self._name}.lock").open("w"))
                fcntl.flock(stream, fcntl.LOCK_EX)
            except OSError:  # a file system without locks: then each compiles for itself
                pass
            if self._marker.exists():
                stack.close()
            else:
                self._compile_parts()
            yield

    def _compile_parts(self) -> None:
        """Once, by whoever has the turn first. What fails is compiled where it is called, or fails there again."""
        parts, self._parts = self._parts, ()
        marker = _FOLDER / f"{self._name}.parts"
        if not parts or marker.exists():
            return
        commands = [
            [sys.executable, "-P", "-m", "harness.sim.compile_part", part.__module__, part.__name__, str(_FOLDER)]
            for part in parts
        ]

        def run(command: list[str]) -> None:
            subprocess.run(
                command, env=package_environment(), capture_output=True, stdin=subprocess.DEVNULL, check=False
            )

        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(run, commands))
        with contextlib.suppress(OSError):
            marker.touch()

    def finish(self) -> None:
        """Everything that is used has been compiled."""
        self.over = True
        with contextlib.suppress(OSError):
            self._marker.touch()

    @property
    def _marker(self) -> Path:
        return _FOLDER / f"{self._name}.compiled"


def sources(package: Path) -> list[Path]:
    """The modules of a package that have compiled functions, and those of it that they import."""
    name = "|".join(re.escape(f"{part}.") for part in (f"harness.{package.name}", package.name)) + "|"
    found = {path for path in package.glob("*.py") if _DECORATED.search(path.read_text())}
    new = set(found)
    while new:
        text = "\n".join(path.read_text() for path in new)
        imported = re.findall(rf"^from (?:{name})(\w+) import", text, re.MULTILINE)
        for names in re.findall(rf"^from harness\.{package.name} import ([\w, ]+)", text, re.MULTILINE):
            imported += [part.split(" as ")[0].strip() for part in names.split(",")]
        new = {path for path in (package / f"{module}.py" for module in imported) if path.is_file()} - found
        found |= new
    return sorted(found)


def code_folder(package: Path) -> Path:
    """Where to keep machine code: beside the byte code, or in the user's cache folder where that cannot be written.

    What was made from other sources is removed.
    """
    digest = hashlib.sha256()
    for path in [*sources(package), Path(control_utils.__file__), Path(transform_utils.__file__)]:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    name = _PREFIX + digest.hexdigest()[:16]
    beside = package / "__pycache__"
    try:
        (beside / name).mkdir(parents=True, exist_ok=True)
    except OSError:
        return _made(cache_folder() / name)
    if not os.access(beside / name, os.W_OK):
        return _made(cache_folder() / name)
    for other in beside.glob(f"{_PREFIX}*"):
        if other.name != name:
            shutil.rmtree(other, ignore_errors=True)
    return beside / name


def _made(folder: Path) -> Path:
    with contextlib.suppress(OSError):  # then numba looks for a place
        folder.mkdir(parents=True, exist_ok=True)
    return folder


_FOLDER = code_folder(Path(__file__).parent)

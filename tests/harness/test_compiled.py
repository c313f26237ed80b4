"""Machine code is made anew when any source it comes from changes, and only then."""

from __future__ import annotations

import ast
import concurrent.futures
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from harness.sim import compiled

PACKAGE = Path(compiled.__file__).parent
CALLER = """
from inner import FACTOR, inner
from harness.sim.compiled import compiled

@compiled
def outer(x):
    return FACTOR * inner(x)

print(outer(1.0), sum(outer.stats.cache_hits.values()))
"""
IN_TURN = """
from harness.sim.compiled import Compilation
compilation = Compilation("x")
with compilation.turn():
    outer(1.0)
compilation.finish()
"""
CALLEE = """
from harness.sim.compiled import compiled
FACTOR = {factor}

@compiled
def inner(x):
    return x + {term}
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "outer.py").write_text(CALLER)
    (tmp_path / "plain.py").write_text("x = 1\n")
    write_callee(tmp_path)
    return tmp_path


def write_callee(package: Path, *, factor: int = 1, term: int = 1) -> None:
    (package / "inner.py").write_text(CALLEE.format(factor=factor, term=term))


def run(package: Path) -> tuple[float, int]:
    """What a new process computes, and how many times it found machine code."""
    computed, found = said(package)
    return float(computed), int(found)


def said(package: Path) -> list[str]:
    """What `outer.py` prints in a new process."""
    program = textwrap.dedent("""
        import runpy, sys
        from pathlib import Path
        from harness.sim import compiled
        package = Path(sys.argv[1])
        compiled._FOLDER = compiled.code_folder(package)
        sys.path.insert(0, str(package))
        runpy.run_path(str(package / "outer.py"))
    """)
    done = subprocess.run([sys.executable, "-c", program, str(package)], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_an_edited_callee_is_noticed(package: Path) -> None:
    assert run(package) == (2.0, 0)
    assert run(package) == (2.0, 1), "not compiled again"
    write_callee(package, term=2)
    assert run(package) == (3.0, 0)
    write_callee(package, term=2, factor=5)
    assert run(package) == (15.0, 0), "a constant of another file"


def test_of_two_processes_one_compiles_and_the_other_waits(package: Path) -> None:
    (package / "outer.py").write_text(CALLER.replace("print(", f"{IN_TURN}print("))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, [package, package]))
    assert sorted(results) == [(2.0, 0), (2.0, 1)]
    assert run(package) == (2.0, 1)


PARTS = """
from harness.sim.compiled import compiled

@compiled
def twice(a):
    return 2 * a

@compiled
def sums(a, b, c):
    return twice(a) + b + c

@compiled
def others(a, b, c):
    return twice(a) - b - c
"""
BOTH = """
from harness.sim.compiled import Compilation
from parts import others, sums
compilation = Compilation("x", (sums, others))
with compilation.turn():
    print(sums(1, 2, 3), others(1, 2, 3), *(sum(part.stats.cache_hits.values()) for part in (sums, others)))
compilation.finish()
"""


def test_parts_are_compiled_in_processes_of_their_own(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that asks for it finds them; what they call is not kept."""
    (package / "parts.py").write_text(PARTS)
    (package / "outer.py").write_text(BOTH)
    monkeypatch.setenv("PYTHONPATH", str(package))
    folder = compiled.code_folder(package)
    for _ in range(2):
        assert said(package) == ["7", "-3", "1", "1"]
        assert sorted(path.name.split("-")[0] for path in folder.rglob("*.nbi")) == ["parts.others", "parts.sums"]
        assert not list(folder.glob("part-*"))


def test_parts_are_compiled_once(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if nobody has come to the end: a process has its turn while the first one is between two of its own."""
    (package / "parts.py").write_text(PARTS)
    (package / "outer.py").write_text(BOTH.replace("compilation.finish()", ""))
    monkeypatch.setenv("PYTHONPATH", str(package))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(said, [package, package])) == [["7", "-3", "1", "1"]] * 2
    made = {path: path.stat().st_mtime_ns for path in compiled.code_folder(package).rglob("*.nb?")}
    assert len(made) == 4
    assert said(package) == ["7", "-3", "1", "1"]
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_parts_that_processes_cannot_compile_are_compiled_where_they_are_called(package: Path) -> None:
    (package / "parts.py").write_text(PARTS)  # which is not on their path
    (package / "outer.py").write_text(BOTH)
    assert said(package) == ["7", "-3", "0", "0"]
    assert said(package) == ["7", "-3", "1", "1"]


def test_a_file_system_without_locks(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_FOLDER", package / "none")
    compilation = compiled.Compilation("x")
    with compilation.turn():
        pass
    compilation.finish()
    assert compilation.over


def test_what_other_sources_made_is_removed(package: Path) -> None:
    first = compiled.code_folder(package)
    (package / "plain.py").write_text("x = 2\n")
    assert compiled.code_folder(package) == first, "nothing there is compiled"
    write_callee(package, term=2)
    second = compiled.code_folder(package)
    assert second != first
    assert second.is_dir()
    assert not first.exists()


def test_a_package_that_cannot_be_written(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_VGGT_CACHE", str(package / "cache"))
    (package / "__pycache__").write_text("no folder")
    folder = compiled.code_folder(package)
    assert folder.parent == package / "cache"
    assert run(package) == (2.0, 0)
    assert run(package) == (2.0, 1)


def test_compiled_functions_use_nothing_that_goes_unnoticed() -> None:
    """What a compiled function takes from a module without compiled functions could change without its being compiled again."""
    sources = compiled.sources(PACKAGE)
    noticed = {f"harness.sim.{path.stem}" for path in sources}
    assert len(sources) >= 8
    for path in sources:
        tree = ast.parse(path.read_text())
        used = {
            node.id
            for function in tree.body
            if isinstance(function, ast.FunctionDef) and function.decorator_list
            for statement in function.body
            for node in ast.walk(statement)
            if isinstance(node, ast.Name)
        }
        for statement in tree.body:
            if isinstance(statement, ast.ImportFrom) and statement.module and statement.module.split(".")[0] != "numba":
                for alias in statement.names:
                    modules = {statement.module, f"{statement.module}.{alias.name}"}
                    assert (alias.asname or alias.name) not in used or modules & noticed, (path.name, alias.name)
        assert "njit(" not in path.read_text() or path.stem == "compiled"


def test_modules_that_are_imported_count_too(package: Path) -> None:
    """And what those import; under either name."""
    first = compiled.code_folder(package)
    (package / "plain.py").write_text(f"from harness.{package.name}.deeper import y as x\n")
    (package / "deeper.py").write_text("y = 1\n")
    assert compiled.code_folder(package) == first, "nothing compiled imports it"
    (package / "inner.py").write_text(
        f"from harness.{package.name} import plain as p\n" + (package / "inner.py").read_text()
    )
    second = compiled.code_folder(package)
    (package / "deeper.py").write_text("y = 2\n")
    assert len({first, second, compiled.code_folder(package)}) == 3


def test_modules_with_inlined_functions_only_count(package: Path) -> None:
    before = compiled.code_folder(package)
    (package / "other.py").write_text("x = 1\n@inlined\ndef f(): ...\n")
    assert compiled.code_folder(package) != before


def test_it_is_kept_where_it_was_looked_for() -> None:
    from harness.sim.sparse_rows import dot

    assert os.fspath(compiled.code_folder(PACKAGE)) in dot.stats.cache_path  # type: ignore[attr-defined]

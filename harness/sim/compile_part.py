"""Compiles one function of three integers into a folder of machine code: `python -m harness.sim.compile_part MODULE NAME FOLDER`.

So that parts can be compiled side by side. numba keeps what it compiles in numbered files with an index per function, which two
processes at once would mix up: here it keeps them in a folder of this process's own, and only the part's go to the folder that is
shared, the index last. What the part calls is in its code.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.sim import compiled
from harness.sim.subprocess_environment import die_with_parent


def compile_into(module: str, name: str, folder: Path) -> None:
    """Compile `module`'s function `name`, and keep its machine code in `folder`, where another process finds it.

    The module must not have been imported: its functions remember their folder.

    Raises:
        OSError: nothing can be written there.
    """
    assert module not in sys.modules, f"{module} is imported already"
    with tempfile.TemporaryDirectory(prefix="part-", dir=folder) as own:
        compiled.keep_in(Path(own))
        part: Any = getattr(importlib.import_module(module), name)
        compiled.compile_part(part)
        made = Path(part.stats.cache_path)
        target = folder / made.relative_to(own)
        target.mkdir(exist_ok=True)
        kept = f"{module.rpartition('.')[2]}.{name}-*.nb[ci]"
        for path in sorted(made.glob(kept)):  # the code (.nbc), then its index (.nbi)
            os.replace(path, target / path.name)


def main() -> None:
    """For the process that asks for it."""
    die_with_parent()
    module, name, folder = sys.argv[1:]
    compile_into(module, name, Path(folder))


if __name__ == "__main__":
    main()

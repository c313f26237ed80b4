"""The real `openpi-client`, in a virtual environment of its own: it wants numpy < 2."""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "openpi_programs"
ENVIRONMENT = ROOT / ".venv-openpi"
WANTED = (
    *(
        "openpi-client==0.1.2",
        "typing_extensions==4.16.0",
    ),  # the second is imported by the first, which does not declare it
    *("numpy==1.26.4", "websockets==17.4", "msgpack==1.2.4", "pillow==13.0.0", "dm-tree==0.1.10"),
)


@functools.cache
def openpi_python() -> Path:
    """The environment's Python; made the first time (PyPI must be reachable), kept beside the project's."""
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / ".installed"
    contents = f"{WANTED} {sys.version}"
    beside = ENVIRONMENT.with_name(ENVIRONMENT.name + ".lock")  # inside it, --clear would take it from who holds it
    with beside.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != contents:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
            command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *WANTED]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            assert done.returncode == 0, f"{WANTED[0]} could not be installed:\n{done.stderr}"
            stamp.write_text(contents)
    return python


@contextmanager
def openpi_server(behaviour: str, folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A running server: (process, port)."""
    command = [str(openpi_python()), str(PROGRAMS / "server.py"), str(port), behaviour, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, ready_port(process)
        finally:
            process.kill()


@contextmanager
def vla_serve(*flags: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A running `vla-serve` on a free port: (process, port)."""
    command = [sys.executable, "-m", "harness.serving.cli", "--port", "0", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " at ws://127.0.0.1:" in line, line + (process.stderr.read() if process.stderr else "")
            yield process, int(line.split("ws://127.0.0.1:")[1].split()[0])
        finally:
            process.terminate()
            process.wait(timeout=20)


def ready_port(process: subprocess.Popen[str]) -> int:
    """The port a server says it is ready on."""
    assert process.stdout is not None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        if line.startswith("ready"):
            return int(line.split()[1])
        assert line, "the server ended before it was ready"
    raise AssertionError("the server is not ready after a minute")

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from results.files import write_atomically
from tests.results.test_run_directory import files_no_larger_than

OLD, NEW = b"old", b"n" * 3_000_000


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_atomically(file, OLD)
    write_atomically(file, NEW)
    assert file.read_bytes() == NEW
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_atomically(file, OLD)
    with files_no_larger_than(1000), pytest.raises(OSError, match="File too large"):
        write_atomically(file, NEW)
    assert file.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [file]


def write_forever(file: Path) -> None:
    while True:
        write_atomically(file, NEW)


def test_a_killed_writer_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_atomically(file, OLD)
    for pause_s in (0.0, 0.002, 0.005, 0.01):
        process = multiprocessing.get_context("fork").Process(target=write_forever, args=(file,))
        process.start()
        assert process.pid is not None
        time.sleep(pause_s)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert file.read_bytes() in (OLD, NEW)

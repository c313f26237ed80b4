from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tasks import init_states
from tasks.suites import load_suite


def test_the_official_states() -> None:
    task = load_suite("libero_spatial")[0]
    states = init_states.read(task.init_states_file)
    assert states.shape == (50, 92)
    assert states.dtype == np.float64
    assert init_states.count(task.init_states_file) == 50


@pytest.mark.parametrize("zipped", [True, False])
def test_the_original_torch_files_are_read_without_unpickling(tmp_path: Path, zipped: bool) -> None:
    states = np.random.default_rng(0).normal(size=(50, 92))
    file = tmp_path / "task.pruned_init"
    torch.save(states, file, _use_new_zipfile_serialization=zipped)
    np.testing.assert_array_equal(init_states.read(file), states)
    assert init_states.count(file) == 50
    assert init_states.find_file(tmp_path, "task") == file


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "executed",)  # type: ignore[return-value]

    torch.save(Bomb(), tmp_path / "task.pruned_init")
    with pytest.raises(init_states.InitStatesError, match="expected a pickled float64 array"):
        init_states.read(tmp_path / "task.pruned_init")
    assert not (tmp_path / "executed").exists()


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "task.pruned_init.npz"
    np.savez_compressed(file, states=np.zeros((5, 9)))
    file.write_bytes(file.read_bytes()[:100])
    for read in (init_states.read, init_states.count):
        with pytest.raises(init_states.InitStatesError, match=r"task\.pruned_init\.npz: expected an"):
            read(file)


def test_wrong_contents_are_named(tmp_path: Path) -> None:
    file = tmp_path / "task.pruned_init.npz"
    np.savez_compressed(file, states=np.full((5, 9), np.nan))
    with pytest.raises(init_states.InitStatesError, match=r"expected finite float64 \(states, 1 \+ nq \+ nv\)"):
        init_states.read(file)


def test_a_missing_file_names_both_formats(tmp_path: Path) -> None:
    with pytest.raises(init_states.InitStatesError, match=r"task\.pruned_init\[\.npz\], found neither"):
        init_states.find_file(tmp_path, "task")

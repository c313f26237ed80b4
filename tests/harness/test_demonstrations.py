"""Replaying a LIBERO HDF5 file that stock LIBERO recorded: every recorded state is reproduced, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from harness.cli import EXIT_OK
from results.run_directory import RunDirectory
from results.trace import read_trace
from tasks.demonstrations import DemonstrationError, DemonstrationFile
from tasks.suites import load_suite
from tests.harness.test_cli import call

STEPS = 60


def record_with_stock(file: Path, suite: str, index: int) -> None:
    """As LIBERO's collection does: a reset, the model read back from its XML, data zeroed and the first state set."""

    from tests.harness.stock import contact_seeking_actions, stock_environment

    task = load_suite(suite)[index]
    env = stock_environment(task)
    env.seed(5)
    with h5py.File(file, "w") as out:
        data = out.create_group("data")
        data.attrs["bddl_file_name"] = f"/home/somebody/LIBERO/bddl_files/{suite}/{task.name}.bddl"
        data.attrs["problem_info"] = json.dumps({"language_instruction": task.instruction_bddl})
        for number in range(3):
            env.reset()
            demo = data.create_group(f"demo_{number}")
            demo.attrs["model_file"] = env.env.sim.model.get_xml()
            start = env.get_sim_state()
            env.reset_from_xml_string(demo.attrs["model_file"])
            env.sim.reset()
            env.set_state(start)
            env.sim.forward()
            actions = contact_seeking_actions(STEPS, seed=number)
            states = []
            for action in actions:
                states.append(env.get_sim_state())
                env.step(action)
            demo["actions"], demo["states"] = actions, np.array(states)
    env.close()


@pytest.mark.sim
@pytest.mark.parametrize(("suite", "index"), [("libero_object", 0), ("libero_spatial", 4)])
def test_a_stock_recording_is_replayed_bit_for_bit(tmp_path: Path, suite: str, index: int) -> None:
    file = tmp_path / "demos.hdf5"
    record_with_stock(file, suite, index)
    status, output, errors = call(tmp_path, policy=f"replay:{file}", workers="1")
    assert status == EXIT_OK, errors
    assert "Replay: 3 of 3 final states equal the recorded ones bit for bit." in output
    run = RunDirectory(tmp_path / "run")
    with h5py.File(file) as recorded:
        for record in run.records():
            trace = read_trace(run.path / record.trace)
            states = np.concatenate([trace.time_s[:, None], trace.qpos, trace.qvel], axis=1)
            demo = recorded["data"][record.spec.init.demo]  # type: ignore[union-attr]
            np.testing.assert_array_equal(states[:-1], demo["states"])
            np.testing.assert_array_equal(trace.actions, demo["actions"])


def write_file(file: Path, **attributes: object) -> Path:
    with h5py.File(file, "w") as out:
        data = out.create_group("data")
        data.attrs.update(attributes)
        for number in (10, 2):
            data.create_group(f"demo_{number}")["actions"] = np.zeros((4, 7))
    return file


def test_demos_come_in_numerical_order(tmp_path: Path) -> None:
    with DemonstrationFile(write_file(tmp_path / "a.hdf5", bddl_file_name="x/turn_on_the_stove.bddl")) as file:
        assert file.demos == ("demo_2", "demo_10")
        assert file.task_name == "turn_on_the_stove"


def test_the_task_may_be_named_in_env_args(tmp_path: Path) -> None:
    arguments = json.dumps({"env_kwargs": {"bddl_file_name": "x/turn_on_the_stove.bddl"}})
    with DemonstrationFile(write_file(tmp_path / "a.hdf5", env_args=arguments)) as file:
        assert file.task_name == "turn_on_the_stove"


def test_a_file_without_a_task(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.hdf5")
    with (
        DemonstrationFile(path) as file,
        pytest.raises(DemonstrationError, match=r"a\.hdf5: expected the attribute data/bddl_file_name"),
    ):
        _ = file.task_name


def test_a_missing_a_truncated_and_a_foreign_file(tmp_path: Path) -> None:
    with pytest.raises(DemonstrationError, match="expected a demonstration file at"):
        DemonstrationFile(tmp_path / "nothing.hdf5")
    path = write_file(tmp_path / "a.hdf5")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DemonstrationError, match=r"not a readable HDF5 file \(truncated\?\)"):
        DemonstrationFile(path)
    with h5py.File(tmp_path / "b.hdf5", "w") as out:
        out["images"] = np.zeros(3)
    with pytest.raises(DemonstrationError, match=r"expected groups data/demo_N, found \['images'\]"):
        DemonstrationFile(tmp_path / "b.hdf5")


def test_a_missing_demo_and_missing_states_are_named(tmp_path: Path) -> None:
    with DemonstrationFile(write_file(tmp_path / "a.hdf5")) as file:
        with pytest.raises(DemonstrationError, match="no demonstration 'demo_7'; it has demo_2, demo_10"):
            file.demonstration("demo_7")
        with pytest.raises(DemonstrationError, match="demo_2: expected `states` and the attribute `model_file`"):
            file.start("demo_2")


def test_actions_of_the_wrong_width(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as out:
        out.create_group("data").create_group("demo_0")["actions"] = np.zeros((4, 6))
    with (
        DemonstrationFile(tmp_path / "a.hdf5") as file,
        pytest.raises(DemonstrationError, match=r"demo_0: expected actions \(T, 7\), got \(4, 6\)"),
    ):
        file.demonstration("demo_0")

"""`vla-train` on a LeRobot dataset: its rate is checked, its tasks are LIBERO's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.demonstrations.lerobot_writer import write_lerobot
from tasks.suites import load_suite
from tests.tasks.test_lerobot_writer import write_hdf5
from tests.tiny_language_model import save_tiny_language_model
from tests.vla_vggt.examples import train_arguments
from vla_vggt.training.checkpoint import read_description
from vla_vggt.training.setup import prepare_training


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_VGGT_CACHE", str(tmp_path / "cache"))


def test_a_dataset_is_trained_on(tmp_path: Path) -> None:
    language_model = save_tiny_language_model(tmp_path / "language")
    dataset = tmp_path / "set"
    write_lerobot([write_hdf5(tmp_path, 0, [9, 7]), write_hdf5(tmp_path, 1, [5])], dataset)
    said: list[str] = []

    def train(**more: Any) -> None:
        given: dict[str, Any] = {
            "log_dir": tmp_path / "run",
            "data_path": (dataset,),
            "task_names": (),
            "max_steps": 2,
            "max_language_tokens": 60,
        } | more
        arguments = train_arguments(given.pop("log_dir"), language_model, **given)
        prepare_training(arguments, say=said.append, on_progress=lambda progress: None).run()

    train()
    assert f"{dataset}: control rate 20 Hz, by its timestamps" in said
    description = read_description(tmp_path / "run")
    assert [task.name for task in description.tasks] == [task.name for task in load_suite("libero_spatial")[:2]]
    assert description.recorded_px == 32
    for file in (dataset / "data").rglob("*.parquet"):  # as in the public set that says 10
        rows = pd.read_parquet(file)
        rows.assign(timestamp=rows["timestamp"] * 2).to_parquet(file, index=False)
    with pytest.raises(ValueError, match=r"control rate of 20 Hz, got 10 Hz\. .*say --control-hz 20"):
        train(log_dir=tmp_path / "other")
    train(log_dir=tmp_path / "other", control_hz=20.0)
    assert f"{dataset}: control rate 20 Hz, as told (by its timestamps 10 Hz)" in said

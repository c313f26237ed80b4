"""LeRobot itself opens what we write: the package from the index, in a virtual environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np
import pytest

from tasks.demonstrations import EpisodeReader
from tasks.demonstrations.lerobot_writer import LeRobotSource, write_lerobot
from tasks.interface import CAMERAS
from tests.tasks.test_lerobot_writer import write_hdf5

PACKAGES = {
    "lerobot": "0.4.4",
    "datasets": "5.*",
    "dill": "0.*",
    "multiprocess": "0.*",
    "xxhash": "3.*",
    "accelerate": "1.*",
}
FOR_TORCH = {"2.13": {"torchvision": "0.28.0", "torchcodec": "0.13.0"}}
"""torch → the versions built for it."""
PROGRAM = """
import sys
import numpy as np, torch
library = torch.library.Library("torchvision", "DEF")  # torchvision from the index is built for CUDA; its operators are not used
for name in ("nms", "qnms"):
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from lerobot.datasets.lerobot_dataset import LeRobotDataset
dataset = LeRobotDataset("tests/set", root=sys.argv[1], video_backend="torchcodec")
rows = [dataset[i] for i in range(len(dataset))]
np.savez(sys.argv[2], episodes=dataset.num_episodes, fps=dataset.fps,
         state=np.stack([r["observation.state"].numpy() for r in rows]), action=np.stack([r["action"].numpy() for r in rows]),
         episode=np.array([int(r["episode_index"]) for r in rows]), tasks=np.array([r["task"] for r in rows]),
         images=np.stack([[r[f"observation.images.{name}"].numpy() for name in ("image", "image2")] for r in rows]),
         q99=dataset.meta.stats["action"]["q99"])
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment that has LeRobot and sees torch and the like in ours."""
    matching = FOR_TORCH.get(".".join(version("torch").split(".")[:2]))
    if matching is None:
        pytest.skip(f"no versions are known to fit torch {version('torch')}")
    folder = tmp_path_factory.mktemp("lerobot") / "venv"
    venv.create(folder, symlinks=True, with_pip=False)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    site.joinpath("ours.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    wanted = [f"{name}=={number}" for name, number in (PACKAGES | matching).items()]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, *wanted]
    installed = subprocess.run(command, check=False, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"LeRobot cannot be installed here: {installed.stderr[-300:]}")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def ffmpeg(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where torchcodec finds FFmpeg: PyAV's, under the names it looks for."""
    folder = tmp_path_factory.mktemp("ffmpeg")
    libraries = Path(av.__file__).parents[1] / "av.libs"
    for file in (file for kind in ("av", "sw") for file in libraries.glob(f"lib{kind}*.so.*")):
        name, number = file.name.split("-")[0], file.name.split(".so.")[1].split(".")[0]
        folder.joinpath(f"{name}.so.{number}").symlink_to(file)
    return f"{folder}:{libraries}"


def test_lerobot_reads_our_numbers_frames_and_statistics(tmp_path: Path, python: Path, ffmpeg: str) -> None:
    sources: list[LeRobotSource] = [write_hdf5(tmp_path, 0, [9, 7]), write_hdf5(tmp_path, 1, [5])]
    write_lerobot(sources, tmp_path / "set")
    environment = os.environ | {"LD_LIBRARY_PATH": ffmpeg, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    read = subprocess.run(
        [python, "-W", "ignore", "-c", PROGRAM, tmp_path / "set", tmp_path / "read.npz"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert read.returncode == 0, read.stderr
    theirs = np.load(tmp_path / "read.npz")
    assert (theirs["episodes"], theirs["fps"]) == (3, 20)
    first = 0
    for source in sources:
        with EpisodeReader(source.file, cameras=CAMERAS, convention="rotated_180") as reader:
            for demo in reader.demos:
                ours = reader.episode(demo)
                rows = slice(first, first + len(ours.actions))
                np.testing.assert_array_equal(theirs["state"][rows], ours.proprio)
                np.testing.assert_array_equal(theirs["action"][rows], ours.actions.astype(np.float32))
                assert set(theirs["tasks"][rows]) == {source.instruction}
                frames = np.moveaxis(theirs["images"][rows], 2, -1) * 255  # (T, 2, H, W, 3)
                assert np.abs(frames - ours.images).mean(axis=(1, 2, 3, 4)).max() < 4
                first = rows.stop
    assert first == len(theirs["state"]) == 21
    np.testing.assert_allclose(theirs["q99"], np.quantile(theirs["action"].astype(np.float64), 0.99, axis=0), rtol=1e-6)

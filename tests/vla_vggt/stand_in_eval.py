"""A stand-in for `vla-eval`: takes its flags, writes its files. Told how to behave by the file `behaviour.json` beside the runs.

`behaviour.json`: step → {"successes": int of 4, "crash": bool, "wait_for": file name}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--checkpoint", "--output-dir", "--videos", "--only", "--render", "--video-size", "--episodes"):
        parser.add_argument(name)
    parser.add_argument("--suite", nargs="*")
    arguments, _ = parser.parse_known_args()
    if arguments.render:
        render(Path(arguments.render), arguments.only)
        return
    run = Path(arguments.output_dir)
    assert (Path(arguments.checkpoint) / "model.safetensors").is_file()
    assert "RANK" not in os.environ
    behaviour = json.loads((run.parent / "behaviour.json").read_text()).get(str(int(run.name)), {})
    print("niceness", os.nice(0), "checkpoint", arguments.checkpoint, flush=True)
    if "wait_for" in behaviour:
        while not (run.parent / behaviour["wait_for"]).exists():
            time.sleep(0.01)
    if behaviour.get("crash"):
        sys.exit("Segmentation fault")
    successes = behaviour.get("successes", 4)
    run.mkdir(parents=True, exist_ok=True)
    row = {"successes": successes, "planned": 4, "errors": 0, "missing": 0, "rate": successes / 4}
    row |= {"low_95": 0.1, "high_95": 0.9, "suite": arguments.suite[0], "task_index": 3}
    outcomes = ["success"] * successes + ["timeout"] * (4 - successes)
    (run / "episodes.jsonl").write_text(
        "".join(
            json.dumps({"spec": {"episode_id": f"libero_goal/03/{i:02d}/r0"}, "outcome": outcome}) + "\n"
            for i, outcome in enumerate(outcomes)
        )
    )
    (run / "summary.json").write_text(json.dumps({"suites": [row], "tasks": [row]}))


def render(run: Path, episode: str) -> None:
    import av

    suite, task, init, repeat = episode.split("/")
    file = run / "videos" / suite / task / f"{init}-{repeat}.mp4"
    file.parent.mkdir(parents=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for level in range(0, 200, 20):
            picture = np.full((32, 64, 3), level, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()

"""The server: what it shows, and that nothing but the run gets out or in."""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from starlette.testclient import TestClient

from results.lock import DirectoryLock
from results.review.cli import ReviewArguments, answered_names, is_loopback, run
from results.review.content import as_script
from results.review.export import export
from results.review.renders import Renders
from results.review.server import LOOPBACK_NAMES, PAGE, ReviewServer
from results.tags import read_reviews
from results.trace import read_trace, trace_path, write_trace
from results.video import video_path
from tests.results.review.runs import STEPS, episodes, write_run

FIRST, ERROR = "libero_spatial/00/00/r0", "libero_spatial/00/03/r0"
RENDER = """
import pathlib, shutil, sys
run, episode, view, size = sys.argv[1:]
suite, task, init, repeat = episode.split("/")
print("1 of 3", flush=True)
if init == "05":
    sys.exit("no GL here")
shutil.copy(f"{run}/videos/{suite}/{task}/00-r0.mp4", f"{run}/videos/{suite}/{task}/{init}-{repeat}.mp4")
print("3 of 3", flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", episodes("sffesf"))


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    server = ReviewServer([folder], ["run"], Renders((sys.executable, "-c", RENDER)))
    with TestClient(server.app(), base_url="http://127.0.0.1:8765") as made:
        yield made


def post(client: TestClient, path: str, content: object, **headers: str) -> tuple[int, dict[str, object]]:
    response = client.post(path, content=json.dumps(content), headers={"content-type": "application/json", **headers})
    return response.status_code, response.json()


def test_the_run(client: TestClient) -> None:
    content = client.get("/api/runs/0").json()
    assert [e["o"] for e in content["episodes"]] == list("sffesf")
    assert [e["v"] for e in content["episodes"]] == [True, False, True, False, True, False]
    assert content["tasks"][0]["prompt"] == "pick up the bowl"
    assert (content["suites"][0]["successes"], content["suites"][0]["finished"]) == (2, 5)
    assert content["running"] is False


def test_an_episodes_course(client: TestClient) -> None:
    course = client.get("/api/runs/0/episode", params={"id": FIRST}).json()
    assert len(course["actions"]) == STEPS
    assert len(course["joints"]) == len(course["fingers"]) == STEPS + 1
    assert len(course["joints"][0]) == 7
    assert course["queries"] == [0]
    assert max(abs(v) for row in course["actions"] for v in row) <= 1.0
    assert client.get("/api/runs/0/episode", params={"id": ERROR}).json()["error"] == "it died"


def test_a_video_comes_in_ranges(client: TestClient, folder: Path) -> None:
    whole = (folder / video_path(FIRST)).read_bytes()
    answer = client.get("/api/runs/0/video", params={"id": FIRST}, headers={"range": "bytes=10-19"})
    assert (answer.status_code, answer.content) == (206, whole[10:20])
    assert answer.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert client.get("/api/runs/0/video", params={"id": FIRST}).content == whole


@pytest.mark.parametrize(
    "episode_id",
    [
        "../../etc/passwd",
        "libero_spatial/00/../../../secret",
        "",
        "/etc/passwd",
        f"{FIRST}/..",
        "libero_spatial/00/99/r0",
    ],
)
@pytest.mark.parametrize("what", ["video", "episode", "render"])
def test_paths_cannot_leave_the_run(client: TestClient, folder: Path, episode_id: str, what: str) -> None:
    (folder.parent / "secret.mp4").write_text("secret")
    answer = client.get(f"/api/runs/0/{what}", params={"id": episode_id})
    assert answer.status_code == 404
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py",
        "/page/%2e%2e%2fserver.py",
        "/page/..%5cserver.py",
        "/page/cli.py",
        "/server.py",
        "/api/runs/1",
        "/api/runs/-1",
    ],
)
def test_only_the_pages_files_are_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_an_episode_id_that_leads_outside_and_a_link_that_does(tmp_path: Path) -> None:
    """A run somebody sent may name anything in its records."""
    records = episodes("ss")
    evil = dataclasses.replace(
        records[0], spec=dataclasses.replace(records[0].spec, episode_id="../../../secret"), trace="../secret"
    )
    folder = write_run(tmp_path / "run", [evil, records[1]], files=False)
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    linked = folder / video_path(records[1].spec.episode_id)
    linked.parent.mkdir(parents=True)
    linked.symlink_to(tmp_path / "secret.mp4")
    with TestClient(ReviewServer([folder], ["run"]).app(), base_url="http://localhost") as client:
        content = client.get("/api/runs/0").json()
        assert [e["id"] for e in content["episodes"]] == [records[1].spec.episode_id]
        assert "line 1 is damaged" in content["warnings"][0]
        for what in ("video", "episode"):
            assert client.get(f"/api/runs/0/{what}", params={"id": "../../../secret"}).status_code == 404
        answer = client.get("/api/runs/0/video", params={"id": records[1].spec.episode_id})
        assert (answer.status_code, answer.json()["error"]) == (403, "this video lies outside the run")


def test_a_corrupt_line_hides_no_other_episode(client: TestClient, folder: Path) -> None:
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    (folder / "episodes.jsonl").write_text("\n".join([lines[0], '{"spec": <script>', *lines[2:], lines[1][:50]]))
    content = client.get("/api/runs/0").json()
    assert len(content["episodes"]) == 5
    assert content["warnings"] == ["episodes.jsonl line 2 is damaged; its episode is shown as missing"]


def test_odd_lines_and_numbers_hide_nothing_else(client: TestClient, folder: Path) -> None:
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    odd = [lines[1].replace('"steps": 40', '"steps": "x"'), lines[2].replace('"libero_spatial/00/02/r0"', "7")]
    assert odd[0] != lines[1]
    assert odd[1] != lines[2]
    (folder / "episodes.jsonl").write_text("\n".join([lines[0], *odd, *lines[3:], ""]))
    content = client.get("/api/runs/0").json()
    assert (len(content["episodes"]), len(content["warnings"])) == (4, 2)
    kept = read_trace(folder / trace_path(FIRST))
    qpos = kept.qpos.copy()
    qpos[3, 0] = np.nan
    write_trace(folder / trace_path(FIRST), dataclasses.replace(kept, qpos=qpos))
    assert client.get("/api/runs/0/episode", params={"id": FIRST}).json()["joints"][3][0] is None


def test_missing_files_are_said(client: TestClient, folder: Path) -> None:
    (folder / video_path(FIRST)).unlink()
    assert client.get("/api/runs/0/video", params={"id": FIRST}).status_code == 404
    for trace in folder.rglob("*.npz"):
        trace.write_bytes(b"cut")
    answer = client.get("/api/runs/0/episode", params={"id": FIRST})
    assert answer.status_code == 410
    assert "not a readable trace" in answer.json()["error"]
    (folder / "manifest.json").unlink()
    assert client.get("/api/runs/0").status_code == 409


def test_a_run_that_goes_on_changes_its_version(client: TestClient, folder: Path) -> None:
    lock = DirectoryLock(folder)
    before = client.get("/api/runs/0").json()
    assert before["running"]
    assert client.get("/api/runs/0/version").json()["version"] == before["version"]
    line = (folder / "episodes.jsonl").read_text().splitlines()[0]
    with (folder / "episodes.jsonl").open("a") as stream:
        new = line.replace("/00/00/r0", "/00/09/r0").replace("/00/00-r0", "/00/09-r0")
        stream.write(f"{new}\n{line[:30]}")
    lock.release()
    assert client.get("/api/runs/0/version").json()["version"] != before["version"]
    after = client.get("/api/runs/0").json()
    assert (len(after["episodes"]), after["running"], after["warnings"]) == (7, False, [])
    assert (
        client.get("/api/runs/0/episode", params={"id": "libero_spatial/00/09/r0"}).status_code == 410
    )  # not written yet


def test_tags_are_saved_beside_the_run(client: TestClient, folder: Path) -> None:
    assert post(client, "/api/runs/0/review", {"id": FIRST, "tags": ["stuck"], "note": "<b>"})[0] == 200
    assert read_reviews(folder)[FIRST].note == "<b>"
    assert client.get("/api/runs/0").json()["reviews"] == {FIRST: {"tags": ["stuck"], "note": "<b>"}}


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        ({"id": "../x", "tags": [], "note": ""}, {}, 404),
        ({"id": [FIRST], "tags": [], "note": ""}, {}, 404),
        ({"id": FIRST, "tags": ["bored"], "note": ""}, {}, 422),
        ({"id": FIRST, "tags": []}, {}, 422),
        ([], {}, 400),
        ({"id": FIRST, "tags": [], "note": "x" * 70_000}, {}, 413),
        ({"id": FIRST, "tags": [], "note": ""}, {"content-type": "text/plain"}, 415),
        ({"id": FIRST, "tags": [], "note": ""}, {"origin": "http://elsewhere.example"}, 403),
        ({"id": FIRST, "tags": [], "note": ""}, {"host": "elsewhere.example"}, 400),
    ],
)
def test_what_must_not_be_written(
    client: TestClient, folder: Path, content: object, headers: dict[str, str], status: int
) -> None:
    answer = client.post(
        "/api/runs/0/review", content=json.dumps(content), headers={"content-type": "application/json", **headers}
    )
    assert answer.status_code == status
    assert not (folder / "review.json").exists()


def test_pages_are_kept_to_themselves(client: TestClient) -> None:
    headers = client.get("/").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_a_missing_video_is_rendered_with_progress(client: TestClient, folder: Path) -> None:
    asked = {"id": "libero_spatial/00/01/r0", "view": "true"}
    assert client.get("/api/runs/0/render", params=asked).json() == {"state": "not asked for"}
    status, state = post(client, "/api/runs/0/render", asked)
    assert status == 200
    deadline = time.monotonic() + 20
    while state["state"] in ("waiting", "rendering") and time.monotonic() < deadline:
        state = client.get("/api/runs/0/render", params=asked).json()
    assert state == {"state": "done", "frame": 3, "frames": 3, "error": ""}
    assert client.get("/api/runs/0/video", params=asked).status_code == 200


def test_a_video_that_cannot_be_rendered(client: TestClient) -> None:
    asked = {"id": "libero_spatial/00/05/r0", "view": "true"}
    _, state = post(client, "/api/runs/0/render", asked)
    deadline = time.monotonic() + 20
    while state["state"] in ("waiting", "rendering") and time.monotonic() < deadline:
        state = client.get("/api/runs/0/render", params=asked).json()
    assert (state["state"], state["error"]) == ("failed", "no GL here")
    status, said = post(client, "/api/runs/0/render", {"id": ERROR})
    assert status == 409
    assert "left nothing to see" in str(said["error"])
    status, said = post(client, "/api/runs/0/render", {"id": FIRST, "view": "policy"})
    assert (status, said["error"]) == (409, "the policy of this run saw no images")


def test_two_runs_are_compared_in_words(folder: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", episodes("fffess"), files=False, protocol={"name": "openpi"})
    same = write_run(tmp_path / "same", episodes("ssfesf"), files=False)
    for second, text in (
        (other, "No comparison: the runs were not made in the same simulation"),
        (same, "No difference is shown: B alone"),
    ):
        with TestClient(ReviewServer([folder, second], ["A", "B"]).app(), base_url="http://localhost") as client:
            assert text in client.get("/api/comparison").json()[0]
    with TestClient(ReviewServer([folder], ["A"]).app(), base_url="http://localhost") as client:
        assert client.get("/api/comparison").status_code == 404


def test_scripts_cannot_be_broken_out_of() -> None:
    text = as_script("reviewData", "</script>", {"note": "</script><script>alert(1)</script>\u2028"})
    assert "<" not in text.replace("<\\", "")
    assert "\u2028" not in text


def test_what_lies_outside_is_not_exported(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    for name in (video_path(FIRST), trace_path(FIRST)):
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "secret")
    assert export([folder], ["a"], tmp_path / "export") == 2
    assert "lies outside the run" in (tmp_path / "export" / "data" / "0" / "libero_spatial_00_00_r0.js").read_text()
    assert not [file for file in (tmp_path / "export").rglob("*") if file.is_file() and b"secret" in file.read_bytes()]


def test_the_page_itself_is_no_export() -> None:
    with pytest.raises(ValueError, match="holds something else than an export"):
        export([], [], PAGE.parent)
    assert (PAGE / "index.html").is_file()


def test_an_export_is_whole_and_replaces_only_exports(tmp_path: Path, folder: Path) -> None:
    target = tmp_path / "export"
    assert export([folder, folder], ["a", "b"], target) == 6
    assert export([folder], ["a"], target) == 3
    assert not (target / "data" / "1").exists()
    assert (target / "data" / "0" / "libero_spatial_00_00_r0.js").is_file()
    assert (target / "data" / "0" / video_path(FIRST)).read_bytes() == (folder / video_path(FIRST)).read_bytes()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    with pytest.raises(ValueError, match="holds something else than an export"):
        export([folder], ["a"], tmp_path / "mine")
    assert (tmp_path / "mine" / "index.html").read_text() == "mine"


def test_the_command_refuses_what_it_cannot_show(tmp_path: Path, folder: Path) -> None:
    for arguments, text in (
        (ReviewArguments(runs=(tmp_path / "nothing",)), "not a run manifest"),
        (ReviewArguments(runs=(folder, folder, folder)), "expected one run directory, or two, got 3"),
        (ReviewArguments(runs=(folder,), host="256.0.0.1", port=0, browser=False), "cannot listen on 256.0.0.1"),
        (ReviewArguments(runs=(folder,), port=99999, browser=False), "vla-review:"),
    ):
        with Path("/dev/null").open("w") as nowhere:
            errors = Console(width=200, record=True, file=nowhere)
            assert run(arguments, out=errors, errors=errors) == 2
            assert text in errors.export_text()
    assert set(answered_names("127.0.0.2")) == {*LOOPBACK_NAMES, "127.0.0.2", "[127.0.0.2]"}
    assert socket.gethostname() in answered_names("0.0.0.0")
    assert "*" not in answered_names("0.0.0.0")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from results.report import write_report
from results.tags import FILE, LONGEST_NOTE, TagError, check_review, count_tags, read_reviews, write_review
from tasks.interface import Outcome
from tests.examples import episode, manifest, record

A, B = "libero_spatial/00/00/r0", "libero_spatial/00/01/r0"


def test_what_is_said_is_found_again_and_can_be_taken_back(tmp_path: Path) -> None:
    assert read_reviews(tmp_path) == {}
    write_review(tmp_path, B, check_review(["stuck", "missed grasp"], "at the handle"))
    write_review(tmp_path, A, check_review(["stuck"], ""))
    found = read_reviews(tmp_path)
    assert found[B].tags == ("missed grasp", "stuck")
    assert found[B].note == "at the handle"
    assert count_tags(found) == {"stuck": 2, "missed grasp": 1}
    write_review(tmp_path, B, check_review([], ""))
    assert list(read_reviews(tmp_path)) == [A]


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    ids = [f"libero_spatial/00/{i:02d}/r0" for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_review(tmp_path, i, check_review(["stuck"], i)), ids))
    assert {key: said.note for key, said in read_reviews(tmp_path).items()} == {i: i for i in ids}


@pytest.mark.parametrize(
    ("tags", "note"),
    [
        (["bored"], ""),
        ("stuck", ""),
        (None, ""),
        ([1], ""),
        ([], None),
        ([], "x" * (LONGEST_NOTE + 1)),
        ([], "half a pair: \ud83d"),
    ],
)
def test_nonsense_is_refused(tags: object, note: object) -> None:
    with pytest.raises(TagError, match="expected"):
        check_review(tags, note)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {"tags": ["bored"], "note": ""}}'])
def test_a_damaged_file_is_named_and_not_written_over(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    for action in (lambda: read_reviews(tmp_path), lambda: write_review(tmp_path, A, check_review([], "x"))):
        with pytest.raises(TagError, match=r"review\.json is damaged"):
            action()
    assert (tmp_path / FILE).read_text() == content


def test_the_report_counts_them(tmp_path: Path) -> None:
    records = [record(episode(0, i), Outcome.TIMEOUT) for i in range(3)]
    write_review(tmp_path, A, check_review(["stuck"], "under the <shelf>"))
    write_report(tmp_path, manifest({"libero_spatial/00": 3}), records, wall_s=1.0)
    text = (tmp_path / "report.md").read_text()
    assert "1 of 3 failures were reviewed" in text
    assert "| stuck | 1 |" in text
    assert rf"- `{A}`: under the \<shelf\>" in text
    (tmp_path / FILE).write_text(json.dumps({A: {}}))
    write_report(tmp_path, manifest({"libero_spatial/00": 3}), records, wall_s=1.0)
    assert "The reviews cannot be read" in (tmp_path / "report.md").read_text()

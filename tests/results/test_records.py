from __future__ import annotations

from pathlib import Path

import pytest

from results.records import RecordError, from_json, to_json
from tasks.interface import InitState, Official, Outcome, Recorded, Sampled
from tests.examples import episode, record

INITS = [
    Official(index=3),
    Sampled(seed=9),
    Sampled(seed=9, spread=2.5),
    Recorded(file=Path("/a/b.hdf5"), demo="demo_1"),
]


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_line_gives_the_record_back(init: InitState, outcome: Outcome) -> None:
    original = record(episode(init=init), outcome, error="Traceback\n…" if outcome is Outcome.ERROR else "")
    line = to_json(original)
    assert "\n" not in line
    assert from_json(line) == original


def test_records_from_before_things_were_spread_are_read() -> None:
    original = record(episode(init=Sampled(seed=9)))
    line = to_json(original)
    assert ', "spread": 1.0' in line
    assert from_json(line.replace(', "spread": 1.0', "")) == original


@pytest.mark.parametrize("line", ["", "{", "[]", '{"spec": {}}', to_json(record())[:-20]])
def test_a_broken_line_is_shown(line: str) -> None:
    with pytest.raises(RecordError, match="not an episode record"):
        from_json(line)

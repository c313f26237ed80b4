"""An ensembling recommendation as plain values, for a server's metadata."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tasks.interface import EnsembleSpec, OpenLoopSpec, TemporalEnsembleSpec

_KINDS: dict[str, type[EnsembleSpec]] = {"open_loop": OpenLoopSpec, "temporal": TemporalEnsembleSpec}


def ensemble_to_plain(spec: EnsembleSpec) -> dict[str, Any]:
    """Such as `{"kind": "open_loop", "execute_steps": 8}`."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(spec, cls))
    return {"kind": kind, **asdict(spec)}


def ensemble_from_plain(content: dict[str, Any]) -> EnsembleSpec:
    """The recommendation `ensemble_to_plain` wrote.

    Raises:
        ValueError: it is none.
    """
    fields = dict(content)
    try:
        return _KINDS[fields.pop("kind")](**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an ensembling recommendation: {content}") from error

"""Makes an episode's ensembler from its description."""

from __future__ import annotations

from harness.ensembling.open_loop import OpenLoop
from harness.ensembling.temporal import TemporalEnsemble
from tasks.interface import Ensembler, EnsembleSpec, OpenLoopSpec, TemporalEnsembleSpec


def make_ensembler(spec: EnsembleSpec) -> Ensembler:
    """A fresh ensembler for one episode."""
    match spec:
        case OpenLoopSpec():
            return OpenLoop(execute_steps=spec.execute_steps)
        case TemporalEnsembleSpec():
            return TemporalEnsemble(decay=spec.decay, query_every=spec.query_every)

"""From chunks to one action per control step."""

from harness.ensembling.make import make_ensembler
from harness.ensembling.open_loop import OpenLoop
from harness.ensembling.temporal import TemporalEnsemble

__all__ = ["OpenLoop", "TemporalEnsemble", "make_ensembler"]

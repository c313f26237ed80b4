"""VLA-VGGT, and the names of the LIBERO environments for gymnasium.

`import vla_vggt`, then `gymnasium.make("vla_vggt/libero_spatial-v0", task=3)`. Registering imports nothing heavy; the
environment itself is `harness.sim.gymnasium_environment`, imported when one is made.
"""

from __future__ import annotations

import gymnasium

from tasks.suites import SUITES

for _suite in SUITES:
    gymnasium.register(
        id=f"vla_vggt/{_suite}-v0",
        entry_point="harness.sim.gymnasium_environment:LiberoEnvironment",
        kwargs={"suite": _suite},
    )

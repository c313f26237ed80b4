"""robosuite's contact check, on which most of LIBERO's goals rest, without a Python object and four names per contact."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.stack import MujocoModel


class ContactCheck:
    """`MujocoEnv.check_contact` of one model: the same answers.

    Args:
        sim: robosuite's wrapper of the model and its data.
    """

    def __init__(self, sim: Any) -> None:
        self._data = sim.data._data
        self._names = [sim.model.geom_id2name(geom) for geom in range(sim.model.ngeom)]
        self._known: dict[Any, NDArray[np.bool_]] = {}

    def __call__(self, geoms_1: Any, geoms_2: Any = None) -> bool:
        """Whether any geom of one group touches any of the other.

        Args:
            geoms_1: a geom's name, a list of names, or a robosuite model, whose contact geoms are meant.
            geoms_2: likewise; None for every geom.
        """
        if not self._data.ncon:
            return False
        one, other = self._data.contact.geom.T
        first, second = self._members(geoms_1), self._members(geoms_2)
        return bool(((first[one] & second[other]) | (first[other] & second[one])).any())

    def _members(self, geoms: Any) -> NDArray[np.bool_]:
        """(ngeom,) which geoms belong to a group."""
        key = tuple(geoms) if isinstance(geoms, list) else geoms
        members = self._known.get(key)
        if members is None:
            names = (
                geoms.contact_geoms if isinstance(geoms, MujocoModel) else [geoms] if isinstance(geoms, str) else geoms
            )
            members = np.array([names is None or name in names for name in self._names])
            self._known[key] = members
        return members

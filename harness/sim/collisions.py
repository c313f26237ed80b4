"""Contacts, as `mj_collision` finds them, without looking at what cannot touch: the same ones, in the same order, bit for bit.

Which geoms are handed to a collision function is decided as in MuJoCo (`near_pairs`); the functions are MuJoCo's own. Where two
geoms touch so lightly that rounding in MuJoCo's bounding volumes could decide, it looks itself. See `mj_collideTree` and
`mj_collideGeoms` in its engine_collision_driver.c.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from harness.sim import contact_layout as contact
from harness.sim.compiled import compiled, inlined
from harness.sim.contact_layout import CONTACT_BYTES, MAX_PER_PAIR, NUM_INTS, NUM_WORDS
from harness.sim.envelope_factor import MINVAL
from harness.sim.native_calls import call_boxes, call_collide
from harness.sim.near_pairs import (
    CONTACT_DIM,
    MARGIN,
    NUM_AXES,
    NUM_COPIED,
    NUM_DOUBTS,
    PLANE,
    Pairs,
    above_plane,
    gap,
    pair_parameters,
    search,
)
from harness.sim.packed import FloatRows, IntRows, float_rows, int_rows, loader

IN_DOUBT = -1
_BOX = 6
_UNSURE = 1e-10
"""[m] an order more than rounding can put into a gap; MuJoCo's own comparison decides there."""
_LIGHT, _LIGHT_CONVEX, _LIGHT_PLANE = 1e-9, 1e-5, 2e-6
"""[m] how deep a contact must be so that every box around its geoms meets the other's: rounding; the convex functions' tolerance; and
four roundings of half an ulp of 5 10^9 m, where the middle of a plane's box is."""
_SINGLE = 1e-6
"""What MuJoCo's sort of bounding boxes may lose, in single precision, per metre."""
_REMOVED_FROM = 1.01
"""`kRemoveRatio`."""


class Search(NamedTuple):
    """What contacts are looked for in."""

    model: int
    """Address of mujoco's."""
    data: int
    compare_boxes: int
    """Address of `mj_collideOBB`."""
    pairs: Pairs


_load = loader(Search)


@compiled
def detect(packed: int, contacts: int, room: int) -> int:
    """Write the contacts of the present positions.

    Args:
        packed: address of a packed `Search`.
        contacts: address of mujoco's.
        room: for how many of them.

    Returns:
        How many there are; `IN_DOUBT` where MuJoCo has to look itself.
    """
    loaded = _load(packed)
    model, data, compare_boxes, pairs = loaded.model, loaded.data, loaded.compare_boxes, loaded.pairs
    search(pairs)
    numbers, integers = float_rows(contacts, room, NUM_WORDS), int_rows(contacts, room, NUM_INTS)
    n = 0
    for k in range(len(pairs.num_near)):
        first = pairs.first[k]
        for i in range(first, first + pairs.num_near[k]):
            pair = pairs.near[i]
            row = pair_parameters(pairs, pair)
            if not _meet(pairs, pair, pairs.parameters[row, MARGIN], compare_boxes):
                continue
            if n + MAX_PER_PAIR > room:
                return IN_DOUBT
            found = _collide(pairs, pair, row, model, data, contacts + n * CONTACT_BYTES, numbers, integers, n)
            if found == IN_DOUBT:
                pairs.notes[NUM_DOUBTS] += 1
                return IN_DOUBT
            n += found
    return n


@inlined
def _collide(  # noqa: PLR0917 (compiled functions take arguments by position)
    pairs: Pairs,
    pair: int,
    row: int,
    model: int,
    data: int,
    contacts: int,
    numbers: FloatRows,
    integers: IntRows,
    n: int,
) -> int:
    """`mj_collideGeoms` of two geoms that have passed its filters: how many contacts there are from the n-th on."""
    geom1, geom2, margin = pairs.geoms[pair, 0], pairs.geoms[pair, 1], pairs.parameters[row, MARGIN]
    kind1, kind2 = pairs.kind[geom1], pairs.kind[geom2]
    found = call_collide(pairs.functions[kind1, kind2], model, data, contacts, geom1, geom2, margin)
    if kind1 == _BOX and kind2 == _BOX and found:
        pos, mat, size = pairs.geom_xpos, pairs.geom_xmat, pairs.size
        for at in range(n, n + found):
            outside1 = _outside(pos, mat, size, geom1, numbers, at, margin)
            outside2 = _outside(pos, mat, size, geom2, numbers, at, margin)
            bad = (outside1 == 1 and outside2 != -1) or (outside2 == 1 and outside1 != -1)
            integers[at, contact.DIM] = -1 if bad else 0
        found = _without_bad(numbers, integers, n, found)
    if not found:
        return 0
    if _is_light(pairs, geom1, geom2, margin, numbers, n, found):
        return IN_DOUBT
    for at in range(n, n + found):
        _finish(numbers, integers, at, pairs.parameters, row, geom1, geom2)
    return found


@inlined
def _meet(pairs: Pairs, pair: int, margin: float, compare_boxes: int) -> bool:
    """Whether MuJoCo would call the collision function: `mj_filterSphere` and `mj_collideOBB`."""
    geom1, geom2, pos = pairs.geoms[pair, 0], pairs.geoms[pair, 1], pairs.geom_xpos
    if pairs.kind[geom1] == PLANE:
        return not above_plane(pos, pairs.geom_xmat, geom1, geom2) > margin + pairs.rbound[geom2]
    x, y, z = pos[geom1, 0] - pos[geom2, 0], pos[geom1, 1] - pos[geom2, 1], pos[geom1, 2] - pos[geom2, 2]
    bound = pairs.rbound[geom1] + pairs.rbound[geom2] + margin
    if x * x + y * y + z * z > bound * bound:
        return False
    if not pairs.boxed[pair]:
        return True
    unsure = False
    axis = pairs.axis[pair]
    for _ in range(NUM_AXES):
        apart = gap(pos, pairs.geom_xmat, pairs.aabb, geom1, geom2, axis) - margin
        if apart > _UNSURE:
            pairs.axis[pair] = axis
            return False
        unsure |= not apart < -_UNSURE
        axis = axis + 1 if axis + 1 < NUM_AXES else 0
    if not unsure:
        return True
    return _boxes_meet(pairs, geom1, geom2, margin, compare_boxes)


@inlined
def _boxes_meet(pairs: Pairs, geom1: int, geom2: int, margin: float, compare_boxes: int) -> bool:
    """As MuJoCo finds it."""
    boxes, pos, mat = pairs.aabb.ctypes.data, pairs.geom_xpos.ctypes.data, pairs.geom_xmat.ctypes.data
    return (
        call_boxes(
            compare_boxes, boxes + 48 * geom1, boxes + 48 * geom2, pos + 24 * geom1, mat + 72 * geom1, pos + 24 * geom2,
            mat + 72 * geom2, margin,
        ) != 0
    )  # fmt: skip


@inlined
def _is_light(  # noqa: PLR0917 (compiled functions take arguments by position)
    pairs: Pairs, geom1: int, geom2: int, margin: float, numbers: FloatRows, first: int, found: int
) -> bool:
    """Whether rounding could have kept MuJoCo from handing these geoms to their collision function."""
    kind1, kind2 = pairs.kind[geom1], pairs.kind[geom2]
    deepest = numbers[first, contact.DIST]
    for at in range(first + 1, first + found):
        deepest = min(deepest, numbers[at, contact.DIST])
    if kind1 == PLANE:
        return not deepest < margin - _LIGHT_PLANE
    light = _LIGHT if kind1 == _BOX and kind2 == _BOX else _LIGHT_CONVEX
    if not deepest < margin - light:
        return True
    pos = pairs.geom_xpos
    squared = far = 0.0
    for k in range(3):
        change = pos[geom1, k] - pos[geom2, k]
        squared += change * change
        far += abs(pos[geom1, k]) + abs(pos[geom2, k])
    slack = pairs.rbound[geom1] + pairs.rbound[geom2] + margin - math.sqrt(squared)
    return not slack > _SINGLE * (1.0 + far)


@compiled
def _without_bad(numbers: FloatRows, integers: IntRows, first: int, found: int) -> int:
    """Remove contacts marked as bad, and repeated ones; how many remain."""
    end = first + found
    for at in range(first, end - 1):
        if integers[at, contact.DIM] == -1:
            continue
        for later in range(at + 1, end):
            if integers[later, contact.DIM] != -1 and _same_position(numbers, at, later):
                integers[at, contact.DIM] = -1
                break
    kept = first
    for at in range(first, end):
        if integers[at, contact.DIM] == 0:
            if kept < at:
                for k in range(NUM_WORDS):
                    numbers[kept, k] = numbers[at, k]
            kept += 1
    return kept - first


@inlined
def _same_position(numbers: FloatRows, a: int, b: int) -> bool:
    same = True
    for k in range(contact.POS, contact.POS + 3):
        same &= numbers[a, k] == numbers[b, k]
    return same


@inlined
def _outside(  # noqa: PLR0917 (compiled functions take arguments by position)
    pos: FloatRows, mat: FloatRows, size: FloatRows, geom: int, numbers: FloatRows, at: int, margin: float
) -> int:
    """`mju_outsideBox` of a contact: 1 outside a box made larger, -1 inside one made smaller, 0 between."""
    x = numbers[at, contact.POS] - pos[geom, 0]
    y = numbers[at, contact.POS + 1] - pos[geom, 1]
    z = numbers[at, contact.POS + 2] - pos[geom, 2]
    inside = True
    for k in range(3):
        along = mat[geom, k] * x + mat[geom, 3 + k] * y + mat[geom, 6 + k] * z
        half = size[geom, k] + margin
        if abs(along) > half * _REMOVED_FROM:
            return 1
        inside &= abs(along) < half / _REMOVED_FROM
    return -1 if inside else 0


@inlined
def _finish(  # noqa: PLR0917 (compiled functions take arguments by position)
    numbers: FloatRows, integers: IntRows, at: int, parameters: FloatRows, row: int, geom1: int, geom2: int
) -> None:
    """`mj_setContact`."""
    for k in range(NUM_COPIED):
        numbers[at, contact.INCLUDE_MARGIN + k] = parameters[row, k]
    _make_frame(numbers, at)
    for k in range(contact.MU, contact.DIM // 2):
        numbers[at, k] = 0.0
    integers[at, contact.DIM] = int(parameters[row, CONTACT_DIM])
    integers[at, contact.GEOM1] = integers[at, contact.GEOM] = geom1
    integers[at, contact.GEOM1 + 1] = integers[at, contact.GEOM + 1] = geom2
    for k in range(contact.FLEX, contact.EXCLUDE):
        integers[at, k] = -1
    integers[at, contact.EXCLUDE] = numbers[at, contact.DIST] >= parameters[row, 0]
    integers[at, contact.EFC_ADDRESS] = -1


@inlined
def _make_frame(numbers: FloatRows, at: int) -> None:
    """`mju_makeFrame`: three axes of a contact from its normal."""
    f = contact.FRAME
    x0, x1, x2 = _normalized(numbers[at, f], numbers[at, f + 1], numbers[at, f + 2])
    y0, y1, y2 = numbers[at, f + 3], numbers[at, f + 4], numbers[at, f + 5]
    if math.sqrt(y0 * y0 + y1 * y1 + y2 * y2) < 0.5:
        upright = -0.5 < x1 < 0.5
        y0, y1, y2 = 0.0, (1.0 if upright else 0.0), (0.0 if upright else 1.0)
    along = x0 * y0 + x1 * y1 + x2 * y2
    y0, y1, y2 = _normalized(y0 - x0 * along, y1 - x1 * along, y2 - x2 * along)
    numbers[at, f], numbers[at, f + 1], numbers[at, f + 2] = x0, x1, x2
    numbers[at, f + 3], numbers[at, f + 4], numbers[at, f + 5] = y0, y1, y2
    numbers[at, f + 6] = x1 * y2 - x2 * y1
    numbers[at, f + 7] = x2 * y0 - x0 * y2
    numbers[at, f + 8] = x0 * y1 - x1 * y0


@inlined
def _normalized(x: float, y: float, z: float) -> tuple[float, float, float]:
    """`mju_normalize3`"""
    norm = math.sqrt(x * x + y * y + z * z)
    if norm < MINVAL:
        return 1.0, 0.0, 0.0
    inverse = 1.0 / norm
    return x * inverse, y * inverse, z * inverse

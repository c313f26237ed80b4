"""Where the expert holds LIBERO's objects. Lengths in metres, each with its reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.expert.hand import (
    MAX_OPENING,
    OPEN_HAND,
    PAD_ABOVE,
    PAD_BELOW,
    TIP,
    clearance,
    obstacles,
)
from harness.expert.servo import UP, Vector, gripper_down, nearest_of_pair, rotation_error
from tasks.boxes import Boxes
from tasks.interface import PrivilegedState


@dataclass(frozen=True, slots=True, kw_only=True)
class Rim:
    """A round vessel whose wall is held: one finger inside, one outside."""

    height: float
    """Rim above the object's origin."""
    radius: float
    """Where the wall is at grasping depth."""
    depth: float
    """End effector below the rim: deeper slips on a sloped wall, shallower holds too little."""
    centre: tuple[float, float] = (0.0, 0.0)
    """Of the vessel's axis, in the object's frame: where it is not the origin."""
    handle: tuple[float, float] | None = None
    """Direction of the handle in the object's frame: the wall is held away from it."""
    lift: float = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A narrow part on top that is held from above, its fingers along one axis of the object."""

    centre: tuple[float, float, float]
    """Where the end effector goes, in the object's frame."""
    finger_axis: tuple[float, float, float]
    """In the object's frame: the one along which nothing is in the fingers' way."""
    lift: float = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowest:
    """A convex thing that is held across, where it is narrowest, from above."""

    below_top: float = 0.030
    """End effector below the top: the hand's lower face is 31 mm above it."""
    above_bottom: float = 0.013
    """End effector above the bottom at least: the fingertips reach 9 mm further."""
    lift: float = 0.12


APPROACH = 0.10
"""From where the hand goes straight to a grasp."""
SHORT_APPROACH, SHOULDER, WRIST = 0.06, 0.333, 0.21
"""From where it does if the arm would be stretched higher up, which it hardly moves out of; the shoulder's height over the base, and
the wrist's over the hand."""
HIGH, STRETCHED = 0.20, 0.70
"""The wrist over the shoulder, and from it: beyond both a higher hand stretches the arm further. It ends at 0.76."""

Hold = Rim | Knob | Narrowest

_SHAPED: dict[str, Hold] = {
    # the wall slopes: 32 mm deep slips
    "akita_black_bowl": Rim(height=0.052, radius=0.050, depth=0.016),
    "white_bowl": Rim(height=0.052, radius=0.050, depth=0.016),
    # the inner fingertip stays 0.2 mm above the base and pinches the slope against the edge; higher up it slides over it
    "plate": Rim(height=0.0165, radius=0.066, depth=0.002, lift=0.03),
    # the origin is not the cup's centre; the wall is straight
    "porcelain_mug": Rim(height=0.108, radius=0.043, depth=0.020, centre=(0.012, 0.0), handle=(-1.0, 0.0)),
    "white_yellow_mug": Rim(height=0.103, radius=0.043, depth=0.020, centre=(-0.018, 0.0), handle=(1.0, 0.0)),
    "red_coffee_mug": Rim(height=0.103, radius=0.043, depth=0.020, centre=(-0.018, 0.0), handle=(1.0, 0.0)),
    # the body is 77 to 82 mm wide: by the lid's knob, the fingers beside spout and handle, 7 mm above the body
    "moka_pot": Knob(centre=(0.0, -0.0013, 0.083), finger_axis=(1.0, 0.0, 0.0)),
}
_CONVEX = (
    *(
        "alphabet_soup",
        "tomato_sauce",
        "cream_cheese",
        "butter",
        "milk",
        "orange_juice",
        "chocolate_pudding",
        "ketchup",
    ),
    *("salad_dressing", "new_salad_dressing", "bbq_sauce", "wine_bottle", "cookies", "macaroni_and_cheese", "popcorn"),
    *("black_book", "yellow_book"),
)
HOLDS: dict[str, Hold] = {**_SHAPED, **{category: Narrowest() for category in _CONVEX}}
"""Category → how it is held."""

YAW_STEP = np.deg2rad(15)
UNDECIDED = np.deg2rad(20)
"""A quarter of a turn either way, for a moka pot: the hand, which begins a degree this way or that, always turns the same way."""
COMFORTABLE_REACH = 0.72
"""Horizontal distance from the robot's base within which the elbow stays off its limit with the hand at table height."""
HIGH_REACH = 0.55
"""The same for what stands as high as on a cabinet, which always stands farther away: of a rim, the side towards the robot is held
wherever it stands. Between that side and the left one a policy would have to choose by a centimetre."""
ROOM = 0.02
"""Distance of the open hand from other things below which a grasp costs more."""
SLANTED = 0.6
"""What it costs to come in from above and outside instead of from above: only where something overhangs."""
SIDED = 2.0
"""What it is worth to hold a rim farther to the robot's left, per metre: a bowl's left is worth 2 cm of reach more than its right.
Demonstrations then show one side wherever it will do; a policy that has seen both goes for the middle."""
UPRIGHT = float(np.cos(np.deg2rad(5)))
"""A vessel whose axis is nearer to straight up is taken to stand."""
DRAWERS = ("top_region", "middle_region", "bottom_region")
"""Of a cabinet."""
DRAWER_ENTRY, DRAWER_RADIUS, DRAWER_DEPTH = 0.030, 0.046, 0.014
"""A bowl in a drawer: the gaps to its walls (25 to 50 mm) do not take the open gripper on the rim, so the hand goes down nearer
the bowl's centre and moves outward while it closes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grasp:
    """A pose of the hand relative to an object's origin, in world axes; the object is not expected to turn meanwhile."""

    offset: Vector
    """(3,) [m]: the end effector from the object's origin when the fingers are closed."""
    entry: Vector
    """(3,) [m]: the same while the open hand comes in."""
    rotation: NDArray[np.float64]
    """(3, 3) in world."""
    approach: Vector
    """(3,) unit vector along which the hand comes in."""
    back: float = APPROACH
    """From how far the hand goes straight in [m]."""
    lift: Vector
    """(3,) [m]: the way out with the object in hand."""
    opening: float
    """The thing's width where the fingers close [m]; 0 for a thin wall."""
    side: float = 0.0
    """How far to the robot's left of a round vessel's axis its rim is held [m]."""


class NoGraspError(ValueError):
    """Nothing about an object can be held."""


def best_grasp(
    state: PrivilegedState,
    name: str,
    *,
    failed: Sequence[Grasp] = (),
) -> Grasp:
    """The grasp of an object that costs least: nothing in the hand's way, arm not stretched, little turning.

    Args:
        failed: grasps that were tried and did not hold; others are preferred.

    Raises:
        NoGraspError: the object is too wide in every direction.
    """
    others = obstacles(state, except_for=(name,))
    candidates = list(_candidates(state, name))
    if not candidates:
        raise NoGraspError(f"no part of {name} is narrower than the open gripper, {MAX_OPENING * 1000:.0f} mm")

    shoulder = state.base_position_world + UP * SHOULDER

    def cost(grasp: Grasp, room: float) -> float:
        is_high = (place(grasp) + UP * (APPROACH + WRIST) - shoulder)[2] > HIGH
        reach = float(np.linalg.norm((place(grasp) - state.base_position_world)[:2]))
        return (
            float(np.linalg.norm(rotation_error(grasp.rotation, state.eef_rotation_world))) * 0.15
            + max(0.0, reach - (HIGH_REACH if is_high else COMFORTABLE_REACH)) * 10.0
            + max(0.0, ROOM - room) * 50.0
            + grasp.opening * 10.0
            + SLANTED * float(grasp.approach[2] > -0.9)
            - SIDED * grasp.side
            + sum(_alike(grasp, other) for other in failed)
        )

    def place(grasp: Grasp) -> Vector:
        return state.position_world(name) + grasp.entry

    def room(grasp: Grasp) -> float:
        way = [place(grasp) - grasp.approach * back for back in (0.0, APPROACH / 2, APPROACH)]
        return min(clearance(OPEN_HAND, position, grasp.rotation, others) for position in way)

    best = candidates[
        cheapest([cost(grasp, ROOM) for grasp in candidates], lambda n: cost(candidates[n], room(candidates[n])))
    ]
    wrist = state.position_world(name) + best.entry - best.approach * APPROACH + UP * WRIST - shoulder
    stretched = wrist[2] > HIGH and np.linalg.norm(wrist) > STRETCHED
    return dataclasses.replace(best, back=SHORT_APPROACH) if stretched else best


def cheapest(bounds: Sequence[float], cost: Callable[[int], float]) -> int:
    """The first of those that cost least.

    Args:
        bounds: what each costs at least: how much room a grasp has takes long to find, and few can be the best.
        cost: of the n-th, exactly.
    """
    best: tuple[float, int] | None = None
    for number in sorted(range(len(bounds)), key=bounds.__getitem__):
        if best is not None and bounds[number] > best[0]:
            break
        found = (cost(number), number)
        best = found if best is None else min(best, found)
    assert best is not None
    return best[1]


def _alike(grasp: Grasp, other: Grasp) -> float:
    return float(
        np.linalg.norm(grasp.offset - other.offset) < 0.02 and abs(grasp.rotation[:, 0] @ other.rotation[:, 0]) > 0.9
    )


def _candidates(state: PrivilegedState, name: str) -> Iterator[Grasp]:
    hold = HOLDS[state.category(name)]
    match hold:
        case Rim():
            drawer = drawer_around(state, name)
            yield from _rim(state, name, hold) if not drawer else _rim_in_drawer(state, name, hold, drawer)
        case Knob():
            yield from _knob(state, name, hold)
        case Narrowest():
            yield from _narrowest(state, name, hold)


def _down(state: PrivilegedState, offset: Vector, finger_axis: Vector, *, lift: float, opening: float = 0.0) -> Grasp:
    """From straight above."""
    rotation = nearest_of_pair(gripper_down(finger_axis), state.eef_rotation_world, undecided=UNDECIDED)
    return Grasp(offset=offset, entry=offset, rotation=rotation, approach=-UP, lift=UP * lift, opening=opening)


def _rim(state: PrivilegedState, name: str, hold: Rim) -> Iterator[Grasp]:
    turned = state.rotation_world(name)
    middle = turned @ np.array([*hold.centre, 0.0])
    handle = turned[:, :2] @ np.array(hold.handle) if hold.handle else np.zeros(3)
    for angle in np.arange(0, 2 * np.pi, YAW_STEP):
        outward = np.array([np.cos(angle), np.sin(angle), 0.0])
        if outward @ handle > 0.5:  # within 60 degrees of it
            continue
        offset = middle + _on_rim(turned[:, 2], outward, hold)
        grasp = dataclasses.replace(_down(state, offset, outward, lift=hold.lift), side=float(outward[1]) * hold.radius)
        yield grasp
        aslant = (UP + outward) / np.sqrt(2)
        yield dataclasses.replace(grasp, approach=-aslant, lift=aslant * hold.lift)


def _on_rim(axis: Vector, outward: Vector, hold: Rim) -> Vector:
    """(3,) [m]: from a vessel's origin to where its wall is held, for its axis (3,) and a horizontal direction (3,), in world.

    One that lies on the edge of a plate is aslant: its rim is 1 cm higher on one side, and 1 cm beside.
    """
    if axis[2] > UPRIGHT:
        return outward * hold.radius + UP * (hold.height - hold.depth)
    along = outward - (outward @ axis) * axis
    return along / np.linalg.norm(along) * hold.radius + axis * (hold.height - hold.depth)


def _rim_in_drawer(state: PrivilegedState, name: str, hold: Rim, cabinet: str) -> Iterator[Grasp]:
    """Along the cabinet's front, where the gaps are widest."""
    height = UP * (hold.height - DRAWER_DEPTH)
    for side in (-1.0, 1.0):
        outward = side * state.rotation_world(cabinet)[:, 0]
        grasp = _down(state, outward * DRAWER_RADIUS + height, outward, lift=hold.lift)
        yield dataclasses.replace(grasp, entry=outward * DRAWER_ENTRY + height)


def _knob(state: PrivilegedState, name: str, hold: Knob) -> Iterator[Grasp]:
    turned = state.rotation_world(name)
    offset = turned @ np.array(hold.centre)
    yield _down(state, offset, turned @ np.array(hold.finger_axis), lift=hold.lift)


def _narrowest(state: PrivilegedState, name: str, hold: Narrowest) -> Iterator[Grasp]:
    """Across the thing's middle in every direction in which it fits between the fingers."""
    boxes, origin = state.boxes(name), state.position_world(name)
    corners = boxes.corners().reshape(-1, 3)
    bottom, top = corners[:, 2].min(), corners[:, 2].max()
    height = max(bottom + hold.above_bottom, top - hold.below_top)
    part = _slab(boxes, height - max(PAD_BELOW, TIP), height + PAD_ABOVE)
    for angle in np.arange(0, np.pi, YAW_STEP / 3):
        axis = np.array([np.cos(angle), np.sin(angle), 0.0])
        across = np.array([-axis[1], axis[0], 0.0])
        along_axis, along_across = part @ axis, part @ across
        width = along_axis.max() - along_axis.min()
        if width > MAX_OPENING - 0.002:
            continue
        middle = (
            axis * (along_axis.max() + along_axis.min()) / 2 + across * (along_across.max() + along_across.min()) / 2
        )
        offset = np.array([*middle[:2], height]) - origin
        yield _down(state, offset, axis, lift=hold.lift, opening=width)


def _slab(boxes: Boxes, low: float, high: float) -> NDArray[np.float64]:
    """Corners (p, 3) of the boxes that reach into a range of heights."""
    corners = boxes.corners()  # (n, 8, 3)
    kept = (corners[:, :, 2].max(axis=1) > low) & (corners[:, :, 2].min(axis=1) < high)
    return corners[kept].reshape(-1, 3)


def drawer_around(state: PrivilegedState, name: str) -> str:
    """The cabinet in one of whose drawers an object's origin lies; empty for none."""
    for cabinet in state.names:
        if not state.category(cabinet).endswith("_cabinet"):
            continue
        turned = state.rotation_world(cabinet)
        position = state.position_world(name) @ turned
        for region in (f"{cabinet}_{drawer}" for drawer in DRAWERS):
            if state.parent(region) != cabinet:
                continue
            corners = state.boxes(region).corners().reshape(-1, 3) @ turned
            if (corners.min(axis=0) < position).all() and (position < corners.max(axis=0)).all():
                return cabinet
    return ""

"""Contacts found here are `mj_collision`'s, byte for byte, in the same order; MuJoCo looks itself where that is not certain.

Whole episodes are in test_equals_stock.py.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.sim
KINDS = ["sphere", "box", "capsule", "cylinder", "ellipsoid", "mesh"]
OCTAHEDRON = "0.05 0 0  -0.05 0 0  0 0.04 0  0 -0.04 0  0 0 0.06  0 0 -0.06"


class Finder:
    """Both ways to find a model's contacts."""

    def __init__(self, xml: str) -> None:
        import mujoco

        from harness.sim.collision_pairs import make_pairs
        from harness.sim.collisions import Search
        from harness.sim.native_calls import collision_functions, functions
        from harness.sim.packed import pack

        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)
        colliding, compare = collision_functions(), functions(("mj_collideOBB",))
        assert colliding is not None
        assert compare is not None
        self.pairs = make_pairs(self.model, self.data, colliding)
        self._search = Search(self.model._address, self.data._address, int(compare[0]), self.pairs)
        self._packed = pack(self._search)

    def mine(self, room: int = 1000) -> tuple[int, bytes]:
        """How many, and what collision detection writes of them."""
        from harness.sim.collisions import detect
        from harness.sim.contact_layout import CONTACT_BYTES

        contacts = np.full((room, CONTACT_BYTES), 0xAA, dtype=np.uint8)
        found = detect(self._packed.ctypes.data, contacts.ctypes.data, room)
        return found, written(contacts[: max(found, 0)])

    def mujocos(self) -> tuple[int, bytes]:
        import mujoco

        from harness.sim.contact_layout import CONTACT_BYTES, FRICTION

        mujoco.mj_collision(self.model, self.data)
        if not self.data.ncon:
            return 0, b""
        first = self.data.contact.friction.ctypes.data - 8 * FRICTION
        memory = (ctypes.c_uint8 * (self.data.ncon * CONTACT_BYTES)).from_address(first)
        return self.data.ncon, written(np.ctypeslib.as_array(memory).reshape(-1, CONTACT_BYTES))

    def step(self) -> None:
        import mujoco

        mujoco.mj_step(self.model, self.data)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)


def written(contacts: np.ndarray[Any, Any]) -> bytes:
    """All but four bytes of padding at a contact's end."""
    return contacts[:, :-4].tobytes()


def things(rng: np.random.Generator) -> str:
    """Bodies of several geoms of all kinds, with all parameters that contacts are made of."""

    def geom(kind: str) -> str:
        shape = (
            'mesh="octahedron"'
            if kind == "mesh"
            else f'size="{" ".join(f"{x:.3f}" for x in rng.uniform(0.02, 0.05, 3))}"'
        )
        place = f'pos="{" ".join(f"{x:.3f}" for x in rng.uniform(-0.05, 0.05, 3))}" euler="{rng.integers(360)} {rng.integers(360)} 0"'
        friction = f"{rng.uniform(0.1, 1.5):.2f} {rng.uniform(0.001, 0.01):.4f} 0.0001"
        soft = f'solref="0.02 {rng.choice([1.0, 1.2])}" solimp="0.9 {rng.choice([0.95, 0.99])} 0.001"'
        distances = rng.choice(['margin="0.01" gap="0.004"', 'margin="0.002"', ""])
        kinds = f'priority="{rng.integers(2)}" solmix="{rng.choice([0, 1, 2.5])}" condim="{rng.choice([1, 3, 4])}"'
        masks = f'contype="{rng.choice([1, 2, 3])}" conaffinity="3"'
        return f'<geom type="{kind}" {shape} {place} friction="{friction}" {soft} {distances} {kinds} {masks}/>'

    bodies = "".join(
        f'<body name="thing{i}" pos="{" ".join(f"{x:.3f}" for x in rng.uniform(-0.06, 0.06, 2))} {0.1 + 0.15 * i:.3f}"><freejoint/>'
        + "".join(geom(str(rng.choice(KINDS))) for _ in range(rng.integers(1, 6)))
        + "</body>"
        for i in range(7)
    )
    chain = "".join(
        f'<body pos="0.1 0 0.05"><joint axis="0 1 0" damping="0.2"/>{geom("box")}{geom("capsule")}' for _ in range(3)
    )
    return f"""<mujoco><option timestep="0.002"/><asset><mesh name="octahedron" vertex="{OCTAHEDRON}"/></asset><worldbody>
      <geom type="plane" size="1 1 0.1"/><geom type="box" size="0.3 0.02 0.1" pos="0 0.25 0.1" margin="0.003"/>
      <body pos="0.2 0 0"><geom type="box" size="0.02 0.2 0.15"/><geom type="cylinder" size="0.05 0.1" pos="0 -0.2 0"/></body>
      <body pos="0 0 0.2">{chain}{"</body>" * 3}</body>{bodies}</worldbody>
      <contact><exclude body1="thing0" body2="thing1"/></contact></mujoco>"""


@pytest.mark.parametrize("seed", range(8))
def test_piles_of_things_touch_as_in_mujoco(seed: int) -> None:
    """Falling, sliding, thrown together, and put elsewhere at once."""
    from harness.sim.collisions import IN_DOUBT
    from harness.sim.near_pairs import NUM_SEARCHES

    rng = np.random.default_rng(seed)
    finder = Finder(things(rng))
    assert len(finder.pairs.geoms) > 100
    contacts, doubts, steps = 0, 0, 800
    for step in range(steps):
        if step % 100 == 50:
            finder.data.qvel[:] += rng.normal(size=finder.model.nv) * 2.0
        if step % 100 == 99:
            finder.data.qpos[:3] = rng.uniform((-0.1, -0.1, 0.1), (0.1, 0.1, 0.3))
        finder.step()
        mine, theirs = finder.mine(), finder.mujocos()
        if mine[0] == IN_DOUBT:
            doubts += 1
            continue
        assert mine == theirs, step
        contacts += mine[0]
    assert contacts > steps
    assert doubts < steps / 20
    looked_at = finder.pairs.notes[NUM_SEARCHES] / (steps * len(finder.pairs.members))
    assert looked_at < 0.9, "not all bodies move by millimetres in each substep"


def test_pairs_of_bodies_that_rest_are_not_looked_at_again() -> None:
    from harness.sim.near_pairs import NUM_SEARCHES

    box = '<body pos="{} 0 0.1"><freejoint/><geom type="box" size="0.1 0.1 0.1"/></body>'
    finder = Finder(
        f'<mujoco><worldbody><geom type="plane" size="1 1 1"/>{"".join(box.format(x) for x in (0, 0.5, 1))}</worldbody></mujoco>'
    )
    for _ in range(200):
        finder.step()
        assert finder.mine() == finder.mujocos()
    assert finder.pairs.notes[NUM_SEARCHES] == len(finder.pairs.members) == 6
    finder.data.qvel[0] = 5.0
    finder.step()
    assert finder.mine() == finder.mujocos()
    assert finder.pairs.notes[NUM_SEARCHES] == 9, "those of the body that moves: the plane, and two boxes"


@pytest.mark.parametrize(
    ("overlap_m", "certain"), [(-1e-3, True), (-1e-12, True), (1e-12, False), (1e-10, False), (1e-6, True)]
)
def test_the_lightest_contacts_are_left_to_mujoco(overlap_m: float, certain: bool) -> None:
    """Whether boxes meet that touch within rounding is for its own bounding volumes to say."""
    from harness.sim.collisions import IN_DOUBT
    from harness.sim.near_pairs import NUM_DOUBTS

    bodies = "".join(
        f'<body pos="0 0 {z:.13f}"><freejoint/><geom type="box" size="0.1 0.1 0.1"/>'
        '<geom type="box" size="0.05 0.05 0.05" pos="0.2 0 0"/></body>'
        for z in (0.0, 0.2 - overlap_m)
    )
    finder = Finder(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")
    mine = finder.mine()
    if certain:
        assert mine == finder.mujocos()
    else:
        assert mine[0] == IN_DOUBT
        assert finder.pairs.notes[NUM_DOUBTS] == 1


@pytest.mark.parametrize(
    ("depth_m", "certain"), [(-1e-6, True), (1e-9, False), (1.5e-6, False), (3e-6, True), (1e-4, True)]
)
def test_on_planes_the_lightest_contacts_are_deeper(depth_m: float, certain: bool) -> None:
    """A plane's box reaches so far down that its middle is rounded to half a micrometre."""
    from harness.sim.collisions import IN_DOUBT

    body = f'<body pos="0 0 {0.1 - depth_m:.13f}"><freejoint/><geom type="box" size="0.1 0.1 0.1"/><geom size="0.01"/></body>'
    finder = Finder(f'<mujoco><worldbody><geom type="plane" size="1 1 1"/>{body}</worldbody></mujoco>')
    mine = finder.mine()
    assert mine == finder.mujocos() if certain else mine[0] == IN_DOUBT


def test_a_slanted_plane_is_left_to_mujoco() -> None:
    plane = '<geom type="plane" size="1 1 1" euler="0 {} 0"/>'
    body = '<body pos="0 0 1"><freejoint/><geom type="box" size="0.1 0.1 0.1"/></body>'
    for angle, looked_for in ((0, 1), (10, 0)):
        finder = Finder(f"<mujoco><worldbody>{plane.format(angle)}{body}</worldbody></mujoco>")
        assert len(finder.pairs.geoms) == looked_for


def test_more_contacts_than_there_is_room_for() -> None:
    from harness.sim.collisions import IN_DOUBT

    boxes = "".join(
        f'<body pos="{x} 0 0.099"><freejoint/><geom type="box" size="0.1 0.1 0.1"/></body>' for x in (0, 0.5, 1)
    )
    finder = Finder(f'<mujoco><worldbody><geom type="plane" size="1 1 1"/>{boxes}</worldbody></mujoco>')
    assert finder.mine(room=100) == finder.mujocos()
    assert finder.mine(room=57)[0] == IN_DOUBT


@pytest.mark.parametrize(
    "xml",
    [
        '<mujoco><asset><hfield name="h" nrow="3" ncol="3" size="1 1 1 0.1"/></asset><worldbody><geom type="hfield" hfield="h"/>'
        '<body pos="0 0 1"><freejoint/><geom size="0.1"/></body></worldbody></mujoco>',
        '<mujoco><option><flag midphase="disable"/></option><worldbody><geom type="plane" size="1 1 1"/>'
        '<body pos="0 0 1"><freejoint/><geom size="0.1"/></body></worldbody></mujoco>',
        '<mujoco><worldbody><geom name="a" type="plane" size="1 1 1"/><body pos="0 0 1"><freejoint/><geom name="b" size="0.1"/></body>'
        '</worldbody><contact><pair geom1="a" geom2="b"/></contact></mujoco>',
    ],
)  # fmt: skip
def test_models_with_something_else_are_left_to_mujoco(xml: str) -> None:
    assert not len(Finder(xml).pairs.geoms)


@pytest.mark.parametrize("volume", ["geom_rbound", "geom_aabb", "bvh_aabb"])
def test_bounding_volumes_that_do_not_bound_are_noticed(volume: str) -> None:
    """What touches outside them MuJoCo does not find."""
    from harness.sim.collision_pairs import make_pairs
    from harness.sim.native_calls import collision_functions

    finder = Finder(things(np.random.default_rng(0)))
    functions = collision_functions()
    assert functions is not None
    assert len(make_pairs(finder.model, finder.data, functions).geoms)
    body = finder.model.body("thing3").id
    first = {
        "geom_rbound": finder.model.body_geomadr,
        "geom_aabb": finder.model.body_geomadr,
        "bvh_aabb": finder.model.body_bvhadr,
    }
    getattr(finder.model, volume)[first[volume][body]] *= 0.9
    assert not len(make_pairs(finder.model, finder.data, functions).geoms)

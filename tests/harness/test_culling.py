"""What is left out of images, and that no pixel shows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.suites import load_suite

pytestmark = pytest.mark.sim


@pytest.mark.parametrize(
    ("suite", "index"), [("libero_spatial", 0), ("libero_object", 3), ("libero_goal", 7), ("libero_10", 8)]
)
def test_culled_images_equal_whole_ones(suite: str, index: int) -> None:
    """Twenty frames of each suite with both cameras here; `scripts/equals_culling.py` does 200."""
    from tests.harness.culling import compare_frames

    unequal, share = compare_frames(load_suite(suite)[index], frames=20)
    assert unequal == 0
    assert share < 0.75, "too little was left out for the comparison to mean much"


def make_culling(xml: str, size_px: int = 64) -> tuple[Any, Any, Any]:
    """A small scene's culling, model and data; all of its geoms are drawn."""
    import mujoco

    from harness.sim.culling import Culling, cut_into_pieces

    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    drawn = np.ones(model.ngeom, dtype=bool)
    return Culling(model, drawn, cut_into_pieces(model, drawn), size_px), model, data


def scene(geoms: str, *, light: str = 'castshadow="false"') -> str:
    """A camera at 2 m height that looks straight down, and geoms."""
    return f"""<mujoco><asset><material name="shiny" reflectance="0.5"/><material name="glass" reflectance="0.5" rgba="1 1 1 0.5"/>
      </asset><worldbody><light pos="0 0 4" {light}/><camera name="down" pos="0 0 2" fovy="45"/>{geoms}</worldbody></mujoco>"""


FLOOR = '<geom name="floor" type="plane" size="0 0 1"/>'
INSIDE = '<geom name="inside" type="sphere" size="0.1" pos="0 0 0.2"/>'
OUTSIDE = '<geom name="outside" type="sphere" size="0.1" pos="3 0 0.2"/>'
BEHIND = '<geom name="behind" type="sphere" size="0.1" pos="0 0 3"/>'
TABLE = '<geom name="table" type="box" size="2 2 0.05" pos="0 0 0.5"/>'
SMALL_TABLE = '<geom name="table" type="box" size="0.3 0.3 0.05" pos="0 0 0.5"/>'
MIRROR = '<geom name="mirror" type="box" size="0.1 0.1 0.02" pos="0.4 0 0.6" material="shiny"/>'


def shown(model: Any, part: Any) -> set[str]:
    return {model.geom(geom).name for geom in np.flatnonzero(part.geoms)}


def test_what_lies_outside_the_view_is_left_out() -> None:
    culling, model, data = make_culling(scene(FLOOR + INSIDE + OUTSIDE + BEHIND))
    (part,) = culling.parts(data, 0)
    assert shown(model, part) == {"floor", "inside"}
    assert not part.reflections


def test_a_box_that_fills_the_view_hides_what_is_behind_it() -> None:
    culling, model, data = make_culling(scene('<geom name="wall" type="plane" size="5 5 1"/>' + INSIDE + TABLE))
    assert shown(model, culling.parts(data, 0)[0]) == {"table"}
    culling, model, data = make_culling(scene(FLOOR + INSIDE + SMALL_TABLE))
    assert shown(model, culling.parts(data, 0)[0]) == {"floor", "inside", "table"}


def test_a_mirror_in_view_is_drawn_apart_with_what_it_shows() -> None:
    many = "".join(
        f'<geom name="ball{i}" type="sphere" size="0.05" pos="-0.3 {i / 100 - 0.4} 0.6"/>' for i in range(80)
    )
    above = '<geom name="above" type="sphere" size="0.1" pos="0.95 0 2.5"/>'  # behind the camera, seen in the mirror
    culling, model, data = make_culling(scene(FLOOR + TABLE + MIRROR + many + above))
    plain, reflecting = culling.parts(data, 0)
    assert not plain.reflections
    assert "above" not in shown(model, plain)
    assert reflecting.reflections
    assert {"above", "mirror", "table"} <= shown(model, reflecting)
    assert "ball0" not in shown(model, reflecting)
    assert "floor" in shown(model, reflecting), "an infinite plane is never left out"
    assert 32 < reflecting.area.left < reflecting.area.right <= 64


def test_one_drawing_where_two_would_take_longer() -> None:
    culling, _, data = make_culling(scene(FLOOR + MIRROR))
    (part,) = culling.parts(data, 0)
    assert part.reflections


def test_a_mirror_out_of_view_or_turned_away_reflects_nothing() -> None:
    away = MIRROR.replace('pos="0.4 0 0.6"', 'pos="4 0 0.6"')
    turned = MIRROR.replace('pos="0.4 0 0.6"', 'pos="0.4 0 0.6" euler="180 0 0"')
    for mirror in (away, turned):
        culling, model, data = make_culling(scene(FLOOR + mirror))
        (part,) = culling.parts(data, 0)
        assert not part.reflections
        assert "mirror" in shown(model, part), "without it MuJoCo would make the next shiny geom the mirror"


@pytest.mark.parametrize(
    ("geoms", "light"),
    [
        (FLOOR + INSIDE + OUTSIDE, 'castshadow="true"'),
        (FLOOR.replace("/>", ' material="shiny"/>') + INSIDE + OUTSIDE, 'castshadow="false"'),
        (FLOOR + MIRROR.replace("shiny", "glass") + OUTSIDE, 'castshadow="false"'),
        (FLOOR + OUTSIDE + '<site type="box" size="1 1 1" material="shiny"/>', 'castshadow="false"'),
    ],
    ids=["shadows", "an infinite mirror", "a transparent mirror", "a mirror that is a site"],
)
def test_where_leaving_out_might_show_nothing_is_left_out(geoms: str, light: str) -> None:
    culling, model, data = make_culling(scene(geoms, light=light))
    assert not culling.possible
    (part,) = culling.parts(data, 0)
    assert part is culling.whole
    assert part.geoms.sum() == model.ngeom


def test_reflected_planes_bound_reflected_points() -> None:
    from harness.sim.view_volume import reflected

    generator = np.random.default_rng(0)
    normal = generator.normal(size=3)
    normal /= np.linalg.norm(normal)
    mirror = np.append(normal, 0.7)
    planes, points = generator.normal(size=(6, 4)), generator.normal(size=(50, 3))
    images = points - 2 * (points @ normal + 0.7)[:, None] * normal
    there = images @ planes[:, :3].T + planes[:, 3]
    here = points @ reflected(planes, mirror)[:, :3].T + reflected(planes, mirror)[:, 3]
    np.testing.assert_allclose(here, there, atol=1e-12)


def test_every_task_of_libero_can_be_culled() -> None:
    """One task of each main suite; the conditions are about scenes, which their tasks share."""
    from harness.sim.culling import Culling, cut_into_pieces
    from harness.sim.scene import Scene

    for suite in ("libero_spatial", "libero_object", "libero_goal", "libero_10"):
        made = Scene(load_suite(suite)[0])
        drawn = np.isin(made.model.geom_group, (1, 2))
        assert Culling(made.model, drawn, cut_into_pieces(made.model, drawn), 256).possible, suite
        made.close()


def test_geoms_that_share_a_mesh_are_drawn_in_its_faces_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both fingers are one mesh; here a ball of 1,280 faces is drawn by opaque geoms and a transparent one, all cut by the view."""
    import mujoco

    from harness.sim import culling
    from harness.sim.renderer import Renderer

    xml = """<mujoco><asset><mesh name="ball" {ball}/></asset><worldbody><light pos="0 0 4" castshadow="false"/>
      <camera name="down" pos="0 0 2" fovy="45"/><geom type="plane" size="0 0 1" group="1"/>
      <geom type="mesh" mesh="ball" pos="0.9 0.2 0.4" group="1" rgba="1 0 0 1"/>
      <geom type="mesh" mesh="ball" pos="-0.2 0.9 0.4" euler="70 0 0" group="1" rgba="0 1 0 1"/>{other}</worldbody></mujoco>"""
    transparent = '<geom type="mesh" mesh="ball" pos="-0.7 -0.8 0.4" euler="0 90 40" group="1" rgba="0 0 1 0.5"/>'
    monkeypatch.setattr(culling, "PIECE_TRIANGLES", 64)
    vertices, faces = icosphere(subdivisions=3)
    ball = (
        f'vertex="{" ".join(f"{v:.6f}" for v in (0.5 * vertices).ravel())}" face="{" ".join(map(str, faces.ravel()))}"'
    )
    for other in ("", transparent):
        model = mujoco.MjModel.from_xml_string(xml.format(ball=ball, other=other))
        assert model.mesh_facenum[0] == 1280
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        culled, whole = Renderer(model, data, (), 128), Renderer(model, data, (), 128, cull=False)
        images = culled.render("down"), whole.render("down")
        assert culled.triangles_drawn < whole.triangles_drawn
        np.testing.assert_array_equal(*images)
        assert images[0].std() > 10
        culled.close()
        whole.close()


def icosphere(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [n, 3] of length 1 and faces [m, 3] of a subdivided icosahedron, outward."""
    from scipy.spatial import ConvexHull

    golden = (1 + 5**0.5) / 2
    corners = [(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    vertices = np.array([np.roll(c, k) for c in corners for k in range(3)], dtype=np.float64)
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    for _ in range(subdivisions):
        faces = ConvexHull(vertices).simplices
        middles = np.concatenate([vertices[faces[:, i]] + vertices[faces[:, (i + 1) % 3]] for i in range(3)])
        middles /= np.linalg.norm(middles, axis=1, keepdims=True)
        vertices = np.concatenate([vertices, np.unique(middles.round(12), axis=0)])
    faces = ConvexHull(vertices).simplices
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, [0, 2, 1]]
    return vertices, faces[np.argsort(vertices[faces].mean(axis=1)[:, 0])]  # pieces of it lie together

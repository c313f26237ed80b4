"""Images: which way round they are, and that a trace is enough to draw them again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.sim.settings import RolloutSettings
from tasks.interface import CAMERAS, ActionChunk, Observation, Official, OpenLoopSpec
from tasks.plan import make_episode
from tasks.protocols import openvla
from tasks.suites import load_suite

pytestmark = pytest.mark.sim
SPEC = make_episode(load_suite("libero_spatial")[0], Official(index=0), openvla())


@pytest.fixture(scope="module")
def simulator() -> Iterator[object]:
    from harness.sim.simulator import Simulator

    simulator = Simulator(SPEC.task, openvla())
    simulator.reset(SPEC)
    yield simulator
    simulator.close()


def project(simulator: object, name: str) -> tuple[int, int]:
    """(row, column) where a person standing at the agentview camera would see an object's origin."""
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    scene = simulator.scene
    camera = scene.model.camera("agentview").id
    rotation = scene.data.cam_xmat[camera].reshape(3, 3)
    x, y, z = rotation.T @ (scene.data.xpos[scene.env.obj_body_id[name]] - scene.data.cam_xpos[camera])
    focal = 128 / np.tan(np.radians(scene.model.cam_fovy[camera]) / 2)
    return int(128 + focal * y / z), int(128 - focal * x / z)


def brightness(image: NDArray[np.uint8], row: int, column: int) -> float:
    return float(image[row - 3 : row + 4, column - 3 : column + 4].mean())


def test_conventions_with_an_object_left_of_the_centre(simulator: object) -> None:
    from harness.sim.renderer import convert
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    (raw,) = simulator.images(("agentview",))
    row, column = project(simulator, "wooden_cabinet_1")  # nearly black, on a bright table
    assert column < 100
    true_view, rotated = convert(raw, "true_view"), convert(raw, "rotated_180")
    for image, r, c in ((true_view, row, column), (rotated, row, 255 - column), (raw, 255 - row, column)):
        dark, mirrored = brightness(image, r, c), brightness(image, r, 255 - c)
        assert dark < 60
        assert mirrored > 120
    np.testing.assert_array_equal(rotated, np.rot90(raw, 2))


def test_only_the_cameras_asked_for_in_their_order(simulator: object) -> None:
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    both = simulator.images(CAMERAS)
    assert both.shape == (2, 256, 256, 3)
    np.testing.assert_array_equal(simulator.images(CAMERAS[::-1]), both[::-1])
    np.testing.assert_array_equal(simulator.images(CAMERAS[1:]), both[1:])
    assert simulator.images(()).shape == (0, 256, 256, 3)


def test_rendering_disturbs_nothing(simulator: object) -> None:
    """The render context runs a forward pass; on the live data it would change the solver's warm start."""
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    ends = []
    for look in (False, True):
        simulator.reset(SPEC)
        for _ in range(12):
            simulator.step(np.array([0.4, 0.1, -0.9, 0, 0, 0.3, 1.0]))
            if look:
                simulator.images(CAMERAS)
        state = simulator.state()
        ends.append(np.concatenate([state.qpos, state.qvel]).tobytes())
    assert ends[0] == ends[1]


def test_meshes_drawn_whole_or_in_pieces_are_the_same(simulator: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU whole meshes have lists of their own."""
    from harness.sim import renderer
    from harness.sim.scene_view import SceneView
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    scene, sampled = simulator.scene, simulator.sampled
    faces, hulls = scene.model.mesh_facenum.copy(), scene.model.mesh_graphadr.copy()
    images = []
    for egl in (False, True):
        monkeypatch.setattr(renderer, "uses_egl", lambda egl=egl: egl)
        view = SceneView(scene, 256, cull=False)
        images.append(view.images(CAMERAS, sampled.qpos, sampled.sites_rgba))
        view.close()
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], simulator.images(CAMERAS))
    np.testing.assert_array_equal(scene.model.mesh_facenum, faces)
    np.testing.assert_array_equal(scene.model.mesh_graphadr, hulls)


def test_a_trace_draws_the_policys_images_again(tmp_path: Path) -> None:
    """The state observed lies inside a control step; the trace keeps it. The lit burner lies outside qpos; so does it."""
    from harness.sim.episode import EpisodeRunner
    from harness.sim.simulator import SampledState, Simulator
    from results.trace import read_trace, trace_path

    task = load_suite("libero_goal")[7]  # turn on the stove: a site lights up
    spec = make_episode(task, Official(index=0), openvla())
    settings = RolloutSettings(
        protocol="openvla",
        cameras=CAMERAS,
        image_convention="raw",
        ensemble=OpenLoopSpec(execute_steps=60),
        worker_policy="",
        run_dir=tmp_path,
    )
    seen: list[NDArray[np.uint8]] = []

    def query(observation: Observation) -> tuple[ActionChunk, float]:
        seen.append(observation.images)
        return ActionChunk(actions=np.tile([0.2, -0.1, -0.3, 0, 0, 0.1, 1.0], (60, 1))), 0.0

    runner = EpisodeRunner(settings)
    runner.run(spec, 1, query)
    runner.close()
    trace = read_trace(tmp_path / trace_path(spec.episode_id))
    assert len(trace.query_steps) == len(seen) == 5

    simulator = Simulator(task, openvla())
    scene = simulator.scene
    bodies = [scene.env.obj_body_id[name] for name in trace.fixtures]
    scene.model.body_pos[bodies], scene.model.body_quat[bodies] = trace.fixture_poses[:, :3], trace.fixture_poses[:, 3:]
    rgba = scene.model.site_rgba.copy()
    for row, images in enumerate(seen):
        rgba[:, 3] = trace.query_site_alpha[row]
        simulator.sampled = SampledState(
            qpos=trace.query_qpos[row], sites_rgba=rgba.copy(), hand=(np.zeros(3), np.zeros(4), np.zeros(2))
        )
        np.testing.assert_array_equal(simulator.images(CAMERAS), images)
    simulator.close()


def test_a_lit_burner_is_drawn_and_recorded() -> None:
    from harness.sim.simulator import Simulator

    task = load_suite("libero_goal")[7]
    simulator = Simulator(task, openvla())
    simulator.reset(make_episode(task, Official(index=0), openvla()))
    dark_images, dark = simulator.images(("agentview",)), simulator.state()
    scene = simulator.scene
    (joint,) = scene.env.get_object("flat_stove_1").joints
    scene.data.qpos[scene.env.sim.model.get_joint_qpos_addr(joint)] = 1.0
    assert simulator.step(np.zeros(7))
    simulator.step(np.zeros(7))
    lit = simulator.state()
    assert (lit.site_alpha != dark.site_alpha).sum() == 1
    assert np.abs(simulator.images(("agentview",)).astype(int) - dark_images).max() > 60
    simulator.reset(make_episode(task, Official(index=0), openvla()))
    np.testing.assert_array_equal(simulator.images(("agentview",)), dark_images, "a reset puts the fire out")
    simulator.close()

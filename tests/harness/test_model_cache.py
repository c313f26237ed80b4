"""The cache of compiled models, on a model of one mesh and two textures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mujoco
import numpy as np
import pytest
from PIL import Image

from harness.sim import model_cache
from harness.sim.model_cache import entry_name, load_model, prune, read_pixels

ROOT = Path(__file__).parents[2]
TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLA_VGGT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_xml(assets: Path, seed: int = 0, size: tuple[int, int] = (8, 6)) -> str:
    assets.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(assets / "picture.png")
    (assets / "shape.obj").write_text(TETRAHEDRON)
    return f"""<mujoco><asset>
      <texture name="sky" type="skybox" builtin="gradient" rgb1="1 1 1" rgb2="0 0 1" width="4" height="4"/>
      <texture name="picture" type="2d" file="{assets}/picture.png"/>
      <texture name="again" type="2d" file="{assets}/picture.png"/>
      <material name="painted" texture="picture"/><mesh name="shape" file="{assets}/shape.obj"/>
    </asset><worldbody><body><freejoint/><geom type="mesh" mesh="shape" material="painted"/></body></worldbody></mujoco>"""


def entries(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob("models/*/entry.json"))


def test_a_cached_model_is_the_compiled_one_without_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xml = make_xml(tmp_path / "assets")
    whole = mujoco.MjModel.from_xml_string(xml)
    load_model(xml)
    monkeypatch.setattr(model_cache, "_make_in_child", lambda *_: pytest.fail("compiled again"))
    cached = load_model(xml)
    assert model_cache.differing_fields(whole, cached.model) == []
    assert cached.model.ntexdata < whole.ntexdata
    names = [whole.tex(texture.index).name for texture in cached.textures]
    assert names == ["picture", "again"]
    for texture in cached.textures:
        start = whole.tex_adr[texture.index]
        expected = whole.tex_data[start : start + texture.num_bytes].reshape(8, 6, 3)
        np.testing.assert_array_equal(read_pixels(texture), expected)
    assert len({texture.file for texture in cached.textures}) == 1, "equal pixels are kept once"


def test_whatever_changes_the_model_changes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xml = make_xml(tmp_path / "assets")
    names = [entry_name(xml), entry_name(xml.replace('rgb2="0 0 1"', 'rgb2="0 0 0.5"'))]
    make_xml(tmp_path / "assets", seed=1)  # the same path, another picture
    names.append(entry_name(xml))
    monkeypatch.setattr(mujoco, "__version__", "9.9.9")
    names.append(entry_name(xml))
    assert len(set(names)) == 4


def test_the_name_does_not_depend_on_where_assets_lie(tmp_path: Path) -> None:
    assert entry_name(make_xml(tmp_path / "here")) == entry_name(make_xml(tmp_path / "there"))


def test_an_asset_that_changes_gives_another_model(tmp_path: Path, folder: Path) -> None:
    before = load_model(make_xml(tmp_path / "assets"))
    after = load_model(make_xml(tmp_path / "assets", seed=1))
    assert len(entries(folder)) == 2
    assert (read_pixels(before.textures[0]) != read_pixels(after.textures[0])).any()


def test_many_writers_make_one_entry(tmp_path: Path, folder: Path) -> None:
    xml = make_xml(tmp_path / "assets")
    written = tmp_path / "written"
    code = (
        "import sys\n"
        "from harness.sim import model_cache\n"
        "make = model_cache._make_in_child\n"
        "def counted(*arguments):\n"
        f"    open({str(written)!r}, 'a').write('.')\n"
        "    make(*arguments)\n"
        "model_cache._make_in_child = counted\n"
        "print(len(model_cache.load_model(sys.stdin.read()).textures))"
    )

    def load(_: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], input=xml, check=True, capture_output=True, text=True, cwd=ROOT
        )
        return done.stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(load, range(4))) == ["2"] * 4
    assert written.read_text() == "."
    assert len(entries(folder)) == 1
    assert list(folder.glob("models/new-*")) == []


@pytest.mark.parametrize("delay_s", [0.0, 0.2, 0.5, 0.8, 1.1])
def test_a_writer_killed_at_any_time_leaves_nothing_half(tmp_path: Path, folder: Path, delay_s: float) -> None:
    xml = make_xml(tmp_path / "assets", size=(800, 800))
    entry = folder / "models" / entry_name(xml)
    entry.parent.mkdir(parents=True)
    writer = subprocess.Popen(
        [sys.executable, "-m", "harness.sim.model_cache", str(entry)], stdin=subprocess.PIPE, cwd=ROOT
    )
    assert writer.stdin is not None
    writer.stdin.write(xml.encode())
    writer.stdin.close()
    time.sleep(delay_s)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    loaded = load_model(xml)
    assert [texture.num_bytes for texture in loaded.textures] == [800 * 800 * 3] * 2
    assert read_pixels(loaded.textures[0]).shape == (800, 800, 3)
    assert entries(folder) == [entry]


def test_remains_of_a_killed_writer_are_removed(tmp_path: Path, folder: Path) -> None:
    remains = folder / "models" / "new-abc" / "entry"
    remains.mkdir(parents=True)
    (remains / "model.mjb").write_bytes(b"half")
    old = time.time() - 2 * model_cache.REMAINS_S
    os.utime(remains.parent, (old, old))
    load_model(make_xml(tmp_path / "assets"))
    assert not remains.exists()


@pytest.mark.parametrize("name", ["model.mjb", "entry.json"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, folder: Path, name: str) -> None:
    xml = make_xml(tmp_path / "assets")
    load_model(xml)
    (entry,) = entries(folder)
    content = (entry / name).read_bytes()
    (entry / name).write_bytes(content[: len(content) // 2])
    assert len(load_model(xml).textures) == 2
    assert (entry / name).read_bytes() == content


def test_damaged_pixels_are_noticed_and_made_again(tmp_path: Path) -> None:
    xml = make_xml(tmp_path / "assets")
    texture = load_model(xml).textures[0]
    good = Path(texture.file).read_bytes()
    Path(texture.file).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(OSError, match=r"\.rgb was damaged and has been removed; try again"):
        read_pixels(load_model(xml).textures[0])
    np.testing.assert_array_equal(read_pixels(load_model(xml).textures[0]).ravel(), np.frombuffer(good, np.uint8))


def test_without_a_place_to_write_models_are_compiled_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    occupied = tmp_path / "a file"
    occupied.write_text("")
    monkeypatch.setenv("VLA_VGGT_CACHE", str(occupied / "cache"))
    loaded = load_model(make_xml(tmp_path / "assets"))
    assert loaded.textures == ()
    assert loaded.model.ntexdata >= 2 * 8 * 6 * 3


def test_a_missing_asset_is_mujocos_to_name(tmp_path: Path) -> None:
    xml = make_xml(tmp_path / "assets")
    (tmp_path / "assets" / "shape.obj").unlink()
    with pytest.raises(ValueError, match=r"shape\.obj"):
        load_model(xml)


def test_beyond_the_limit_the_longest_unused_go(tmp_path: Path, folder: Path) -> None:
    xmls = [make_xml(tmp_path / f"assets{seed}", seed) for seed in range(3)]
    for age, xml in enumerate(xmls):
        load_model(xml)
        used = time.time() - 1000 + age
        os.utime(folder / "models" / entry_name(xml), (used, used))
    load_model(xmls[0])  # now the last used
    size = (entries(folder)[0] / "model.mjb").stat().st_size
    prune(2 * size)
    kept = {entry.name for entry in entries(folder)}
    assert entry_name(xmls[0]) in kept
    assert entry_name(xmls[1]) not in kept
    needed = {Path(texture.file) for texture in load_model(xmls[0]).textures}
    assert needed <= set(folder.glob("textures/*.rgb"))
    prune(0)
    assert {entry.name for entry in entries(folder)} == {entry_name(xmls[0])}, "the last used stays"
    assert set(folder.glob("textures/*.rgb")) == needed


def test_an_unreadable_entry_does_not_stop_the_pruning(tmp_path: Path, folder: Path) -> None:
    load_model(make_xml(tmp_path / "assets"))
    broken = folder / "models" / ("0" * 64)
    broken.mkdir()
    (broken / "entry.json").write_text("{")
    prune(10**12)
    assert not broken.exists()
    assert len(entries(folder)) == 1

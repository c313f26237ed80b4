from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgpack
import numpy as np
import pytest

from harness.policies.ensemble_wire import ensemble_from_plain, ensemble_to_plain
from harness.policies.openpi_wire import WireError, pack, plain, resized, unpack
from tasks.interface import EnsembleSpec, OpenLoopSpec, TemporalEnsembleSpec
from tests.harness.openpi_environment import PROGRAMS, openpi_python

ARRAYS = {
    "image": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
    "state": np.linspace(0, 1, 8, dtype=np.float32),
    "actions": np.random.default_rng(0).normal(size=(10, 7)),
    "empty": np.empty((0, 7)),
    "scalar": np.array(3.5),
    "big_endian": np.arange(3, dtype=">i4"),
    "not_contiguous": np.arange(12).reshape(3, 4)[::-1, ::2],
}


def test_arrays_come_back() -> None:
    content = unpack(pack({"prompt": "grüß", "arrays": ARRAYS, "number": np.float32(0.1), "list": [1, None, True]}))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(content["arrays"][name], array)
        assert content["arrays"][name].dtype == array.dtype
    assert (content["prompt"], content["number"], content["list"]) == ("grüß", np.float32(0.1), [1, None, True])


def test_openpis_own_code_reads_ours_and_we_read_its(tmp_path: Path) -> None:
    """Byte for byte the same frames."""
    (tmp_path / "ours").write_bytes(pack(ARRAYS))
    code = (
        "import sys, numpy as np; from openpi_client import msgpack_numpy as m\n"
        "content = m.unpackb(open(sys.argv[1], 'rb').read())\n"
        "assert content['actions'].shape == (10, 7) and content['image'].dtype == np.uint8\n"
        "open(sys.argv[2], 'wb').write(m.packb(content))"
    )
    command = [str(openpi_python()), "-c", code, str(tmp_path / "ours"), str(tmp_path / "theirs")]
    subprocess.run(command, check=True)
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()


def test_images_are_resized_as_openpi_does(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (4, 256, 256, 3), dtype=np.uint8)
    images[2] = np.linspace(0, 255, 256, dtype=np.uint8)[:, None, None]
    np.save(tmp_path / "in.npy", images)
    command = [str(openpi_python()), str(PROGRAMS / "resize.py"), str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    subprocess.run(command, check=True)
    np.testing.assert_array_equal(np.stack([resized(image) for image in images]), np.load(tmp_path / "out.npy"))
    np.testing.assert_array_equal(resized(images[0, 16:240, 16:240]), images[0, 16:240, 16:240])


def array_map(**changes: object) -> bytes:
    parts = {b"__ndarray__": True, b"data": b"\x00" * 8, b"dtype": "<f4", b"shape": [2]}
    return msgpack.packb({"a": parts | {key.encode(): value for key, value in changes.items()}})


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"\xc1", "not a msgpack frame"),
        (b"", "not a msgpack frame"),
        (pack({"a": 1})[:-1], "not a msgpack frame"),
        (msgpack.packb([1, 2]), "expected a map, got list"),
        (array_map(shape=[3]), r"an array of shape \(3,\) and dtype float32 does not have 8 bytes"),
        (array_map(shape=[-1, -2]), "does not have 8 bytes"),
        (array_map(shape=[2**40, 2**40]), "does not have 8 bytes"),
        (array_map(shape="2"), "an array needs `data`"),
        (array_map(data=7), "an array needs `data`"),
        (array_map(dtype="|O"), "arrays of dtype object are refused"),
        (array_map(dtype="<U2"), "are refused; numbers only"),
        (array_map(dtype="nonsense"), "unknown dtype"),
        (array_map(dtype=None), "unknown dtype|does not have"),
    ],
)
def test_a_damaged_frame_is_refused(frame: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        unpack(frame)


def test_nothing_is_unpickled() -> None:
    with pytest.raises(WireError, match="cannot send an array of dtype object"):
        pack({"a": np.array([object()])})
    with pytest.raises(WireError, match="cannot be sent"):
        pack({"a": object()})


def test_metadata_becomes_json() -> None:
    received = {"pose": np.zeros(2), b"name": b"pi0", "nested": {"x": np.float32(1)}, "list": (1, "a", None)}
    assert plain(received) == {"pose": [0.0, 0.0], "name": "pi0", "nested": {"x": 1.0}, "list": [1, "a", None]}


@pytest.mark.parametrize(
    "spec", [OpenLoopSpec(), OpenLoopSpec(execute_steps=5), TemporalEnsembleSpec(decay=0.1, query_every=3)]
)
def test_ensembling_survives_the_wire(spec: EnsembleSpec) -> None:
    assert ensemble_from_plain(unpack(pack(ensemble_to_plain(spec)))) == spec


@pytest.mark.parametrize("content", [{}, {"kind": "magic"}, {"kind": "open_loop", "steps": 3}])
def test_a_strange_recommendation_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not an ensembling recommendation"):
        ensemble_from_plain(content)


def test_the_wire_needs_neither_torch_nor_simulator() -> None:
    code = "import sys, harness.policies.remote; print({'torch', 'mujoco', 'robosuite'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"

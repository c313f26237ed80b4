"""Compiled models on disk: compiling one takes seconds and a gigabyte, loading it a fraction of a second and 80 MB.

What makes a compiled model large and slow is its textures: they are decoded to raw pixels and kept in memory for good, although
only the GL context needs them, once. So an entry holds the model with 1 × 1 pixel stand-ins for textures that come from files,
and the pixels lie beside it, one file per different image, shared by all models and mapped when a context is made.

The name of an entry is a hash of the model's XML, in which each asset's path is replaced by a hash of its content, and of the
MuJoCo version. The XML is what robosuite and LIBERO make of a BDDL file: other versions of them, another BDDL file or another asset
give another name, so an entry is never stale. An entry appears whole or not at all (it is renamed into place), however many
processes write it and whenever they are killed. Where there is no room or no right to write, models are compiled as usual.

`python -m harness.sim.model_cache ENTRY` makes one entry from the XML on standard input: a process of its own, because a worker
would not get the memory back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np

from harness.machine import available_bytes, usable_cores
from harness.sim.subprocess_environment import package_environment
from tasks.cache_folder import cache_folder

FORMAT = 1
LIMIT_BYTES = 12 * 10**9
"""What all entries may take on disk; beyond it those longest unused are removed."""
COMPILE_TIMEOUT_S = 150.0
COMPILE_BYTES = 1.5 * 2**30
"""What compiling one model takes while it lasts; as many go on at once as memory allows."""
REMAINS_S = 3600.0
"""What a killed writer left is removed after this long."""
_MODEL, _INDEX = "model.mjb", "entry.json"
_TEXTURE_FIELDS = {"tex_adr", "tex_data", "tex_height", "tex_width", "tex_pathadr", "paths"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Texture:
    """The pixels of one texture of a model, in a file."""

    index: int
    """The texture's id in the model."""
    kind: int
    """mujoco's `mjtTexture`."""
    width: int
    height: int
    sha256: str
    """Of its pixels."""
    file: str
    """uint8 (height, width, 3) RGB, as MuJoCo decodes it."""

    @property
    def num_bytes(self) -> int:
        return self.width * self.height * 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledModel:
    """A model, and the pixels it does not hold itself."""

    model: Any
    """`mujoco.MjModel`"""
    textures: tuple[Texture, ...]
    """Empty for a model that was compiled here and holds all."""


def compile_model(xml: str) -> CompiledModel:
    """The model of an XML, with nothing cached.

    Raises:
        ValueError: MuJoCo does not accept it.
    """
    return CompiledModel(model=mujoco.MjModel.from_xml_string(xml), textures=())


def load_model(xml: str) -> CompiledModel:
    """The model of an XML: from the cache, where an entry is made if there is none.

    Raises:
        ValueError: MuJoCo does not accept the XML.
    """
    try:
        entry = cache_folder() / "models" / entry_name(xml)
        found = _read(entry)
        if found is None:
            with _lock(entry):
                found = _read(entry)  # another process may have made it meanwhile
                if found is None:
                    with _lock(entry.parent / f"making-{os.getpid() % _places()}"):
                        _make_in_child(entry, xml)
                    found = _read(entry)
    except (
        OSError,
        RuntimeError,
    ):  # no home, no room, no right, no such asset: MuJoCo says what is wrong with the model
        found = None
    return found or compile_model(xml)


def entry_name(xml: str) -> str:
    """Hash of everything that a compiled model depends on.

    Raises:
        OSError: an asset cannot be read.
    """
    tree = ElementTree.fromstring(xml)
    digests: dict[str, str] = {}
    for element in tree.iter():
        for attribute, value in element.attrib.items():
            if attribute.startswith("file") and value:
                if value not in digests:
                    digests[value] = hashlib.sha256(Path(value).read_bytes()).hexdigest()
                element.set(attribute, digests[value])
    versions = f"{FORMAT} {mujoco.__version__} {sys.byteorder}"
    return hashlib.sha256(versions.encode() + ElementTree.tostring(tree)).hexdigest()


def read_pixels(texture: Texture) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A texture's pixels, mapped: uint8 (height, width, 3).

    Raises:
        OSError: the file is gone or damaged; it is removed, and made again when the model is loaded next.
    """
    file = Path(texture.file)
    try:
        pixels = np.memmap(file, dtype=np.uint8, mode="r", shape=(texture.height, texture.width, 3))
    except ValueError as error:  # too short
        file.unlink(missing_ok=True)
        raise OSError(f"{file} was damaged and has been removed; try again") from error
    if hashlib.sha256(pixels.data).hexdigest() != texture.sha256:
        file.unlink(missing_ok=True)
        raise OSError(f"{file} was damaged and has been removed; try again")
    return pixels


# --- reading ---------------------------------------------------------------------------------------


def _read(entry: Path) -> CompiledModel | None:
    """A whole entry, or None."""
    try:
        index = json.loads((entry / _INDEX).read_text())
        textures = tuple(Texture(**texture, file=str(_pixels(texture["sha256"]))) for texture in index["textures"])
        if any(Path(texture.file).stat().st_size != texture.num_bytes for texture in textures):
            return None
        with (entry / _MODEL).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != index["model_sha256"]:
                return None
        model = mujoco.MjModel.from_binary_path(str(entry / _MODEL))
        with contextlib.suppress(OSError):  # another user's
            os.utime(entry)  # it was used
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return CompiledModel(model=model, textures=textures)


def _pixels(sha256: str) -> Path:
    return cache_folder() / "textures" / f"{sha256}.rgb"


def _places() -> int:
    """How many models may be compiled at once."""
    return max(1, int(min(usable_cores(), available_bytes() / COMPILE_BYTES)))


@contextlib.contextmanager
def _lock(entry: Path) -> Iterator[None]:
    """One process at a time makes an entry; the others wait and read it."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with (entry.parent / f"{entry.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


# --- making ----------------------------------------------------------------------------------------


def _make_in_child(entry: Path, xml: str) -> None:
    """Make an entry in another process. Whether it worked, reading it shows."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [sys.executable, "-P", "-m", "harness.sim.model_cache", str(entry)],
            input=xml.encode(),
            env=package_environment() | {"MUJOCO_GL": "disable"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=COMPILE_TIMEOUT_S,
        )


def make_entry(entry: Path, xml: str) -> None:
    """Compile a model and put it into the cache.

    Raises:
        ValueError: MuJoCo does not accept the XML.
        RuntimeError: the model without its textures differs in more than its textures.
        OSError: it cannot be written.
    """
    whole = mujoco.MjModel.from_xml_string(xml)
    slim_xml, names = without_file_textures(xml)
    slim = mujoco.MjModel.from_xml_string(slim_xml)
    different = differing_fields(whole, slim)
    if different:
        raise RuntimeError(f"the model without textures differs in {', '.join(different)}")
    textures = []
    for name in names:
        index = mujoco.mj_name2id(whole, mujoco.mjtObj.mjOBJ_TEXTURE, name)
        start, width, height = whole.tex_adr[index], int(whole.tex_width[index]), int(whole.tex_height[index])
        if whole.tex_nchannel[index] != 3:
            raise RuntimeError(f"texture {name} has {whole.tex_nchannel[index]} channels, expected 3")
        pixels = whole.tex_data[start : start + width * height * 3].tobytes()
        digest = hashlib.sha256(pixels).hexdigest()
        textures.append(
            Texture(index=index, kind=int(whole.tex_type[index]), width=width, height=height, sha256=digest, file="")
        )
        _write(_pixels(digest), pixels)
    with tempfile.TemporaryDirectory(dir=entry.parent, prefix="new-") as folder:
        new = Path(folder) / "entry"
        new.mkdir()
        mujoco.mj_saveModel(slim, str(new / _MODEL), None)
        with (new / _MODEL).open("rb") as stream:
            os.fsync(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        rows = [{k: v for k, v in asdict(texture).items() if k != "file"} for texture in textures]
        _write(new / _INDEX, json.dumps({"model_sha256": digest, "textures": rows}).encode())
        shutil.rmtree(entry, ignore_errors=True)  # a damaged one
        new.rename(entry)
    prune(LIMIT_BYTES)


def without_file_textures(xml: str) -> tuple[str, list[str]]:
    """The XML with 1 × 1 stand-ins for textures from files, and the names of those."""
    tree = ElementTree.fromstring(xml)
    names = []
    for texture in tree.iter("texture"):
        if "file" not in texture.attrib or "name" not in texture.attrib:
            continue
        kept = {key: texture.attrib[key] for key in ("name", "type") if key in texture.attrib}
        names.append(kept["name"])
        texture.attrib.clear()
        texture.attrib.update(kept | {"builtin": "flat", "width": "1", "height": "1"})
    return ElementTree.tostring(tree, encoding="unicode"), names


def differing_fields(whole: Any, slim: Any) -> list[str]:
    """Names of arrays, other than the textures' own, in which two models differ."""
    names = [name for name in dir(whole) if not name.startswith("_") and name not in _TEXTURE_FIELDS]
    pairs = {name: (getattr(whole, name), getattr(slim, name)) for name in names}
    return [name for name, (a, b) in pairs.items() if isinstance(a, np.ndarray) and a.tobytes() != b.tobytes()]


def _write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all; one that is there with this size stays."""
    if file.is_file() and file.stat().st_size == len(content):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix="new-", delete=False) as stream:
        try:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(stream.name, file)
        except BaseException:
            os.unlink(stream.name)
            raise


def prune(limit_bytes: int) -> None:
    """Remove the entries longest unused until the cache takes no more than `limit_bytes`, and pixels no entry needs.

    An entry that another process is about to read is, to that process, one that was never made; pixels that it is about to map are an
    error, after which the model is loaded anew.
    """
    folder = cache_folder()
    with (folder / "prune.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        for remains in folder.glob("*/new-*"):
            if time.time() - remains.stat().st_mtime > REMAINS_S:
                shutil.rmtree(remains) if remains.is_dir() else remains.unlink()
        entries = sorted(
            (path for path in folder.glob("models/*") if path.is_dir()), key=lambda path: path.stat().st_mtime
        )
        needs = {entry: _needs(entry) for entry in entries}
        sizes = {path: path.stat().st_size for path in folder.glob("textures/*.rgb")}
        sizes |= {path: path.stat().st_size for path in folder.glob(f"models/*/{_MODEL}")}
        for entry in entries:
            unreadable = needs[entry] is None and not entry.name.startswith("new-")
            if not unreadable and (sum(sizes.values()) <= limit_bytes or entry == entries[-1]):
                continue
            shutil.rmtree(entry, ignore_errors=True)
            sizes.pop(entry / _MODEL, None)
            del needs[entry]
            needed = {digest for digests in needs.values() for digest in digests or ()}
            for texture in [path for path in sizes if path.suffix == ".rgb" and path.stem not in needed]:
                del sizes[texture]
                texture.unlink(missing_ok=True)


def _needs(entry: Path) -> set[str] | None:
    """Hashes of the pixels an entry needs; None where it cannot be read."""
    try:
        return {row["sha256"] for row in json.loads((entry / _INDEX).read_text())["textures"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main() -> None:
    """Make the entry named on the command line from the XML on standard input."""
    make_entry(Path(sys.argv[1]), sys.stdin.buffer.read().decode())


if __name__ == "__main__":
    main()

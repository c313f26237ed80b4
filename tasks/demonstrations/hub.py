"""Demonstrations on the Hugging Face hub: `hf://OWNER/NAME`, `hf://OWNER/NAME@REVISION`, or with a part of it: `hf://OWNER/NAME/FOLDER`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tasks.demonstrations.hdf5 import DemonstrationError

SCHEME = "hf:"


def is_on_hub(path: Path) -> bool:
    """Whether a path is a hub's name. (A `Path` of `hf://a/b` is `hf:/a/b`.)"""
    return path.parts[:1] == (SCHEME,)


def download(path: Path, say: Callable[[str], None]) -> Path:
    """The folder on this machine; what was downloaded before is used again.

    Args:
        path: `hf://OWNER/NAME`, `@REVISION` and the path of a folder or file in it appended where wanted.
        say: told what is being done.

    Raises:
        DemonstrationError: the name is none, there is no such dataset, or the hub cannot be reached and it was not downloaded before.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    owner_and_name, _, revision = "/".join(path.parts[1:3]).partition("@")
    part = "/".join(path.parts[3:])
    shown = f"hf://{'/'.join(path.parts[1:])}"
    if len(path.parts) < 3:
        raise DemonstrationError(f"{shown}: expected hf://OWNER/NAME, such as hf://HuggingFaceVLA/libero")
    say(f"Downloading {shown}, or taking it from the cache")
    try:
        folder = snapshot_download(
            owner_and_name,
            repo_type="dataset",
            revision=revision or None,
            allow_patterns=[part, f"{part}/**"] if part else None,
        )
    except RepositoryNotFoundError as error:
        raise DemonstrationError(
            f"{shown}: the hub has no dataset of that name, or it is not public (`hf auth login`)"
        ) from error
    except Exception as error:  # whatever the hub's HTTP library raises, which changes with its version
        raise DemonstrationError(
            f"{shown} cannot be downloaded: {(str(error) or repr(error)).splitlines()[0]}. Where the hub can be reached: "
            f"`hf download --repo-type dataset {owner_and_name} --local-dir FOLDER`, then --data-path FOLDER."
        ) from error
    if part and not (Path(folder) / part).exists():
        raise DemonstrationError(f"{shown}: the dataset {owner_and_name} has nothing at {part}")
    return Path(folder) / part

"""What goes into a run besides its settings, by content: the pictures, the weights it starts from, the autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pag_inverse.settings.files import check_file
from pag_inverse.storage.files import file_sha256, sha256

SHOWN = 3
_LARGEST = 2**34  # bytes of a file of weights
Hashes = dict[str, dict[str, str]]  # flag -> name of a file -> SHA-256 of its content


@dataclass(frozen=True)
class Inputs:
    """The SHA-256 of every input by its flag, and the content of the autoencoder's files by their names."""

    hashes: Hashes
    autoencoder: dict[str, bytes] = field(default_factory=dict)


def read_inputs(data: Path, pictures: list[Path], init: str | None, autoencoder: Path | None) -> Inputs:
    """Read what the run is made of; pictures are named relative to `data`. ValueError where a file is missing."""
    files = {} if autoencoder is None else autoencoder_files(autoencoder)
    hashes = {"--data": {_name(path.relative_to(data)): _hash(path) for path in pictures}}
    if init is not None:
        hashes["--init"] = {"its content": _hash(Path(init))}
    if autoencoder is not None:
        hashes["--autoencoder"] = {name: sha256(content) for name, content in files.items()}
    return Inputs(hashes, files)


def autoencoder_files(folder: Path) -> dict[str, bytes]:
    """The settings and the weights in a folder of diffusers, by name."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    own = [name for name in names if name == "config.json" or name.startswith("diffusion_pytorch_model")]
    for name in own:
        check_file(folder / name, _LARGEST)
    return {name: (folder / name).read_bytes() for name in own}


def changes(old: Hashes, new: Hashes) -> list[str]:
    """What two records of inputs differ in, one text a flag that names a few of the files."""
    found = {flag: _differences(old.get(flag, {}), new.get(flag, {})) for flag in sorted(set(old) | set(new))}
    return [_told(flag, files) for flag, files in found.items() if files]


def _differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """A text for each file that has changed, is missing or is new."""
    words = {name: "is missing" if name not in new else "has changed" for name in old if old[name] != new.get(name)}
    words |= {name: "is new" for name in new if name not in old}
    return [f"{name} {word}" for name, word in sorted(words.items())]


def _told(flag: str, files: list[str]) -> str:
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return f"{flag}: {', '.join(files[:SHOWN])}{more}"


def _name(path: Path) -> str:
    """A name as a text that every file can hold."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def _hash(path: Path) -> str:
    digest = file_sha256(path)
    if digest is None:
        raise ValueError(f"{path}: no such file")
    return digest

"""What a folder's files were when it was written: `checksums.json`, sha256 by file name.

Every folder that we write has it, no released one does. A folder that has it is compared with it
before it is used: its settings whenever they are read, its weights before they are loaded.
"""

import json
from pathlib import Path

from etils import epath

from dig_jax.common.addresses import is_remote
from dig_jax.common.files import file_sha256

CHECKSUMS = "checksums.json"
_LARGE = ".safetensors"


def write_checksums(folder: Path) -> None:
    """Of every file that lies in a folder; arrays in sub-folders have digests of their own."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != CHECKSUMS)
    known = {path.name: file_sha256(path) for path in files}
    (folder / CHECKSUMS).write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


def check_files(folder: epath.Path, *, weights: bool) -> None:
    """Raises ValueError naming the first file that is not what `checksums.json` says.

    weights   the tensors' files, read whole; else all others. A bucket's are not read twice: the
              storage keeps checksums of its own.
    """
    listed = folder / CHECKSUMS
    if not listed.is_file() or (weights and is_remote(str(folder))):
        return
    for name, wanted in _known(listed).items():
        if name.endswith(_LARGE) != weights:
            continue
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is in {CHECKSUMS} but not there; {_REMEDY}")
        if file_sha256(path) != wanted:
            raise ValueError(
                f"{path} is not what was written: its sha256 differs from {CHECKSUMS}; {_REMEDY}"
            )


_REMEDY = (
    "write the folder again by the command that made it and --overwrite, or, where the change is "
    f"your own, delete its {CHECKSUMS}"
)


def _known(listed: epath.Path) -> dict[str, str]:
    try:
        known = json.loads(listed.read_text())
        ok = isinstance(known, dict) and all(isinstance(value, str) for value in known.values())
    except (json.JSONDecodeError, UnicodeDecodeError):
        ok = False
    if not ok:
        raise ValueError(f"{listed} is damaged; {_REMEDY}")
    return known

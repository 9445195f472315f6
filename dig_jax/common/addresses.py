"""Folders by their address: a path of this machine, or gs://BUCKET/FOLDER in Google's storage.

Both are `epath.Path`s; Orbax and the readers of weights take either. What is written by others,
processes of the same run among them, is seen at once: listings are not kept.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import fsspec
from etils import epath

# gcsfs would keep a folder's listing for as long as the process lives: a checkpoint of another
# process, or of TensorStore in this one, would not be there.
fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)


def is_remote(address: str | Path) -> bool:
    return "://" in str(address)


def folder_at(address: str | Path) -> epath.Path:
    """The folder at an address, there or not; one of this machine by its absolute path."""
    return epath.Path(address) if is_remote(address) else epath.Path(Path(address).resolve())


def check_plain(field: str, address: str | Path) -> None:
    """Raises ValueError where arrays written below an address could not be found again.

    Orbax lists what it has written by a pattern that begins with the whole path: one with
    brackets matches other names than its own, and nothing would ever be restored.
    """
    whole = str(folder_at(address))
    wrong = sorted(set(whole) & set("*?[\\"))
    if wrong:
        what = "" if str(address) == whole else f", which is {whole},"
        raise ValueError(
            f"{field}={str(address)!r}{what} has {' and '.join(wrong)} in it, by which Orbax would "
            f"not find its own files again; name a folder without * ? [ and backslash"
        )


@contextlib.contextmanager
def reaching(field: str, address: str | Path) -> Iterator[None]:
    """Says of which setting an address is that cannot be used, and what to do about it.

    What lies within only looks and tries: whatever a client of Google's raises becomes a
    ValueError. FileNotFoundError passes, for it says what is missing, and so does everything
    where the address is a path.
    """
    if not is_remote(address):
        yield
        return
    try:
        yield
    except FileNotFoundError:
        raise
    except ImportError as error:
        raise ValueError(
            f"{field}={str(address)!r} needs a package that is missing ({error}); "
            f"install dig_jax[gcs]"
        ) from error
    except Exception as error:  # gcsfs, aiohttp and google.auth have no common one
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(
            f"{field}={str(address)!r} cannot be reached or written ({reason}); is the bucket's "
            f"name right, and has this machine's account the right to read, write, delete and "
            f"list there (`gcloud auth application-default login`, or a VM's service account)?"
        ) from error


def try_out(field: str, address: str | Path) -> None:
    """Writes, lists, reads and deletes an object below a remote folder.

    Raises ValueError naming the field and the remedy where one of these is not possible.
    """
    token = secrets.token_hex(8)
    mark = folder_at(address) / f".dig_jax-{token}"
    with reaching(field, address):
        try:
            mark.write_text(token)
            seen = mark.name in {path.name for path in mark.parent.iterdir()}
            if not seen or mark.read_text() != token:
                raise OSError(f"{mark} is not what was written there")
            mark.unlink()
        except FileNotFoundError as error:  # what gcsfs says where there is no such bucket
            raise OSError(f"no such bucket? {error}") from error

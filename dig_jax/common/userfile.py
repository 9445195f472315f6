"""Python files that a user wrote, run with their mistakes told as the user's.

Whatever such a file raises becomes a ValueError that names the file, its line, the exception's
type and its message: `KeyError('X')` alone says nothing to whoever wrote `os.environ["X"]`.
"""

import contextlib
import runpy
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Where no line is the user's: this package, Python's own library, what is installed.
_NOT_THEIRS = {
    Path(__file__).resolve().parents[1],
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")),
}


def run_path(path: Path) -> dict[str, Any]:
    """The names that a file defines; raises ValueError naming file and line where it fails."""
    with telling_of(path):
        return runpy.run_path(str(path))


@contextlib.contextmanager
def telling_of(path: str | Path) -> Iterator[None]:
    """Turns an exception of the code within, which is or calls the file's, into a ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(told(error, path)) from error


def told(error: Exception, path: str | Path | None = None) -> str:
    """ "FILE, line N: TypeError: message", of the deepest line of `path` that was running.

    Where that called another file of the user's that failed, its line is added. Without `path`
    it is the deepest line of any such file, if there is one.
    """
    what = f"{type(error).__name__}: {message(error)}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if _theirs(frame.filename)]
    if path is None:
        return f"{_line(theirs[-1])}: {what}" if theirs else what
    own = [frame for frame in frames if _same(frame.filename, Path(path).resolve())]
    if not own:
        return f"{path}: {what}"
    last = theirs[-1] if theirs else own[-1]
    called = f" (in {_line(last)})" if last not in own else ""
    return f"{path}, line {own[-1].lineno}{called}: {what}"


def _line(frame: traceback.FrameSummary) -> str:
    return f"{frame.filename}, line {frame.lineno}"


def message(error: BaseException) -> str:
    """An exception's text; a KeyError's without the quotes that `str` puts around it."""
    single = isinstance(error, KeyError) and len(error.args) == 1
    return str(error.args[0] if single else error)


def _same(name: str, path: Path) -> bool:
    return not name.startswith("<") and Path(name).resolve() == path


def _theirs(name: str) -> bool:
    """A file that a user may have written; Python's frozen machinery of imports has no file."""
    return not name.startswith("<") and _NOT_THEIRS.isdisjoint(Path(name).resolve().parents)

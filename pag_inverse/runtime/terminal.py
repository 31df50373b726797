"""Output that never turns a success into a failure: a full or closed stream loses its text and nothing else."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TextIO


def quiet_interruptions() -> None:
    """Let Ctrl-C that nothing catches, as while modules are imported, end the process with one line, not a trace."""
    before = sys.excepthook

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("stopped before anything was done", file=sys.stderr)
        else:
            before(kind, error, trace)

    sys.excepthook = told


class Forgiving:
    """A text stream whose write errors are kept in `error` and not raised; letters it cannot write are escaped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: Exception | None = None
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write what can be written; the length of the text."""
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        """Bring it to the stream."""
        self._attempt("flush")

    def _attempt(self, name: str, *args: Any) -> None:
        try:
            getattr(self._stream, name)(*args)
        except (OSError, ValueError) as error:  # full, or closed
            self.error = self.error or error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def forgiving_streams() -> Iterator[None]:
    """Let a command print to streams that are full, closed, or cannot write a letter of a file's name.

    A broken pipe is silent, as its reader wished; otherwise a line on stderr says that text was lost on stdout.
    """
    before = sys.stdout, sys.stderr
    # A stream that the caller closed is None; print() would take the other one.
    out, err = (Forgiving(io.StringIO() if stream is None else stream) for stream in before)
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        for stream in (out, err):
            stream.flush()
        if out.error is not None and not isinstance(out.error, BrokenPipeError):
            print(f"standard output: {out.error}; what was printed is lost", file=sys.stderr)
        sys.stdout, sys.stderr = before

"""Files are parsed in child processes with limits, so that no file can hurt the rest.

A child is a fresh interpreter (`retrieval.parse._child`) that reads requests, one JSON line each,
and answers with a length and JSON. It is used for many files and replaced after a failure, or
after `_FILES` files. The child limits itself through the kernel; wall-clock time is the parent's,
which kills. POSIX gives all limits; elsewhere only time and sizes are limited.
"""

from __future__ import annotations

import ast
import json
import os
import queue
import signal
import stat
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from retrieval.config import ParseSettings
from retrieval.errors import ParseError, RetrievalError
from retrieval.parse._wire import LENGTH, failure
from retrieval.parse.base import refuse
from retrieval.schema import Block, Heading, Parsed

#: Files a child parses before it is replaced, so that a leak in a library stays small.
_FILES = 500
#: Seconds a child may take to start on a busy machine.
_START = 60.0
_FOLDER = Path(__file__).parent

#: Suffixes people try that need another program first.
_CONVERT = {
    ".doc": ".docx",
    ".ppt": ".pptx",
    ".xls": ".xlsx",
    ".rtf": ".docx",
    ".odt": ".docx",
    ".ods": ".xlsx",
    ".odp": ".pptx",
    ".mobi": ".epub",
    ".msg": ".eml",
    ".xml": ".html",
}


@cache
def _parsers() -> dict[str, str]:
    """Suffix to the name of the file here that parses it, read from the sources."""
    found: dict[str, str] = {}
    for file in sorted(_FOLDER.glob("[!_]*.py")):
        for node in ast.parse(file.read_bytes()).body:
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and node.target.id == "SUFFIXES"
                and node.value is not None
            ):
                found.update(dict.fromkeys(ast.literal_eval(node.value), file.stem))
    return found


def supported_suffixes() -> tuple[str, ...]:
    """Every suffix that can be parsed, lower case with the dot, sorted."""
    return tuple(sorted(_parsers()))


def _check_suffix(path: Path) -> str:
    """Return the name of the parser for `path`."""
    suffix = path.suffix.lower()
    name = _parsers().get(suffix)
    if name is not None:
        return name
    if suffix in _CONVERT:
        remedy = f"Open it in its program and save it as {_CONVERT[suffix]}."
        raise refuse(path, "unsupported", f"{suffix} files are not read", remedy)
    kind = f"{suffix} files are" if suffix else "a file without a suffix is"
    raise refuse(path, "unsupported", f"{kind} not read")


def _check_file(path: Path, settings: ParseSettings) -> None:
    """Only a regular file within the limit may be opened: a pipe would never end."""
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise refuse(path, "unreadable", f"cannot be opened: {why}") from error
    if not stat.S_ISREG(state.st_mode):
        raise refuse(path, "unreadable", "not a regular file")
    if state.st_size > settings.max_bytes:
        detail = f"{state.st_size} bytes, the limit is {settings.max_bytes}"
        raise refuse(path, "too_large", detail)


def _environment() -> dict[str, str]:
    """Build the child's environment: where our code is, one thread, and nothing of the user's."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
        if name in os.environ
    }
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(_FOLDER.parents[1]), *filter(None, sys.path)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "LC_ALL": "C.UTF-8",
        # Thread pools and allocator arenas reserve address space that the limit would count.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


class ParserPool:
    """Parses files in at most `settings.workers` children; safe to use from several threads.

    Children start when first needed. Use it as a context manager, or call `close`.
    """

    def __init__(self, settings: ParseSettings) -> None:
        self._settings = settings
        self._slots: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(settings.workers):
            self._slots.put(None)
        self._closed = False

    def parse(self, path: Path) -> Parsed:
        """Read one file; waits while all children are busy.

        Raises:
            ParseError: with the path, a reason of `retrieval.parse.base.REASONS` and a remedy.
            RetrievalError: the pool is closed.

        """
        name = _check_suffix(path)
        _check_file(path, self._settings)
        child = self._slots.get()
        try:
            if self._closed:
                raise RetrievalError("the parser pool is closed; make a new one")
            if child is not None and not child.alive():
                child.kill()  # ended while idle: this file is not to blame
                child = None
            if child is None:
                child = _Child(self._settings)
            answer = child.ask(path, name)
            if child.worn:
                child.kill()
                child = None
        except BaseException:
            if child is not None:
                child.kill()
                child = None
            raise
        finally:
            self._slots.put(child)
        return _unpack(path, answer)

    def close(self) -> None:
        """End the children, waiting for those at work. Closing twice is fine."""
        self._closed = True
        children = [self._slots.get() for _ in range(self._settings.workers)]
        for child in children:
            if child is not None:
                child.kill()
            self._slots.put(None)

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _unpack(path: Path, answer: dict[str, Any]) -> Parsed:
    """Turn a child's answer into what `ParserPool.parse` gives or raises."""
    if "reason" in answer:
        raise ParseError(str(path), answer["reason"], answer["detail"], answer["remedy"])
    return Parsed(
        text=answer["text"],
        title=answer["title"],
        headings=tuple(Heading(level, text, start) for level, text, start in answer["headings"]),
        blocks=tuple(Block(start, end, kind) for start, end, kind in answer["blocks"]),
        notes=tuple(answer["notes"]),
    )


class _Child:
    """The parent's end of one child process."""

    def __init__(self, settings: ParseSettings) -> None:
        self._seconds = settings.seconds
        self._longest = settings.max_characters * 64 + 2**20
        self._files = 0
        self._timed_out = threading.Event()
        self.worn = False
        # -P: the current directory must not be able to shadow a library.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "retrieval.parse._child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/" if os.name == "posix" else None,
            # Ctrl-C is for the parent to handle; it must not look like a broken file.
            start_new_session=True,
            env=_environment(),
        )
        if self._exchange(settings.model_dump(), _START) is None:
            self.kill()
            raise RetrievalError(
                f"a parser process did not start (exit status {self._process.returncode}); "
                f"check that {sys.executable} can import retrieval.parse"
            )

    def ask(self, path: Path, name: str) -> dict[str, Any]:
        """Return the child's answer about one file; sets `worn` when the child must be replaced."""
        self._files += 1
        answer = self._exchange({"path": os.path.abspath(path), "parser": name}, self._seconds)
        if answer is None:
            self.worn = True
            return self._obituary()
        self.worn = answer["worn"] or self._files >= _FILES or self._timed_out.is_set()
        return answer

    def _exchange(self, message: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """Return the answer to `message`, or None when the child died or had to be killed."""
        timer = threading.Timer(seconds, self._expire)
        timer.daemon = True
        timer.start()
        try:
            self._send(message)
            return self._receive()
        except (OSError, EOFError):
            return None
        finally:
            timer.cancel()

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process and close its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue  # unsent bytes for a dead child: nobody waits for them

    def _expire(self) -> None:
        self._timed_out.set()
        self._process.kill()

    def _send(self, message: dict[str, Any]) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        pipe.write(json.dumps(message).encode("ascii") + b"\n")
        pipe.flush()

    def _receive(self) -> dict[str, Any]:
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        if length > self._longest:
            raise EOFError
        answer: dict[str, Any] = json.loads(self._read(length))
        return answer

    def _read(self, count: int) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        data = pipe.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def _obituary(self) -> dict[str, Any]:
        """Say why a child that gave no answer died."""
        if self._timed_out.is_set():
            return failure("timeout", f"not read within {self._seconds:g} s")
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return failure("broken", "the parser gave an answer that makes no sense")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        if name == "SIGXCPU":
            return failure("timeout", "the parser used up its processor time")
        if name == "SIGKILL":
            return failure("memory", "the system ended the parser, most likely for its memory")
        return failure("broken", f"the parser died reading it ({name})")

"""The child of `retrieval.parse.worker`: limits itself, then parses what it is asked to.

Run as `python -m retrieval.parse._child`; it ends when its input does.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from retrieval.config import ParseSettings
from retrieval.errors import BackendMissing, ParseError
from retrieval.menu import load
from retrieval.parse import _sniff
from retrieval.parse._wire import LENGTH, failure

if sys.platform != "win32":
    import resource

#: Address space for the interpreter and a format's libraries, on top of `memory_mb`; MiB.
_LIBRARIES_MB = 384
_DESCRIPTORS = 64
_FILE_BYTES = 2**20


class _NoSocket(socket.socket):
    """Parsers read files; a document that makes one of them call somewhere must fail."""

    def __new__(cls, *_: object, **__: object) -> NoReturn:
        raise OSError("sockets are disabled in a parser")


def main() -> None:
    """Answer requests from standard input until it ends."""
    requests, answers = _take_pipes()
    socket.socket = _NoSocket  # type: ignore[assignment, misc]  # replacing it is the point
    settings = ParseSettings(**json.loads(requests.readline()))
    _limit_process(settings)
    _send(answers, {"ready": True})
    for line in requests:
        request = json.loads(line)
        _limit_time(settings)
        _send(answers, _answer(Path(request["path"]), request["parser"], settings))


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return the pipes to the parent, moved away from where a library could read or print."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return requests, answers


def _limit_process(settings: ParseSettings) -> None:
    """Limits that hold for the child's whole life."""
    if sys.platform != "win32":
        space = (settings.memory_mb + _LIBRARIES_MB) * 2**20
        for kind, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, _FILE_BYTES),
            (resource.RLIMIT_NOFILE, _DESCRIPTORS),
            (resource.RLIMIT_AS, space),
        ):
            _, hard = resource.getrlimit(kind)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            try:
                resource.setrlimit(kind, (value, value))
            except (ValueError, OSError):
                if sys.platform != "darwin":  # macOS refuses to limit address space
                    raise


def _limit_time(settings: ParseSettings) -> None:
    """Move the processor-time limit forward for one more file (the parent watches the clock)."""
    if sys.platform != "win32":
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = math.ceil(time.process_time() + settings.seconds) + 1
        if hard == resource.RLIM_INFINITY or soft < hard:
            resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _answer(path: Path, parser: str, settings: ParseSettings) -> dict[str, Any]:
    """Return what one file holds, or why it cannot be read: every error has a named reason."""
    try:
        _sniff.check(path, path.stat().st_size)
        parsed = load("retrieval.parse", parser).parse(path, settings)
        return {
            "text": parsed.text,
            "title": parsed.title,
            "headings": [(h.level, h.text, h.start) for h in parsed.headings],
            "blocks": [(b.start, b.end, b.kind) for b in parsed.blocks],
            "notes": parsed.notes,
            "worn": False,
        }
    except ParseError as error:
        return failure(error.reason, error.detail, error.remedy)
    except BackendMissing as error:
        return failure("unsupported", str(error))
    except MemoryError:
        return failure("memory", f"more than {settings.memory_mb} MiB were needed", worn=True)
    except RecursionError:
        return failure("broken", "it is nested too deeply", worn=True)
    except OSError as error:
        return failure("unreadable", error.strerror or type(error).__name__, worn=True)
    except Exception as error:
        # The outermost boundary: libraries raise anything at all on a damaged file.
        return failure("broken", f"its parser failed with {_words(error)}", worn=True)


def _words(error: Exception) -> str:
    """Put an unexpected error in one short line."""
    message = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _send(answers: BinaryIO, answer: dict[str, Any]) -> None:
    data = json.dumps(answer, ensure_ascii=False).encode("utf-8", errors="replace")
    answers.write(LENGTH.pack(len(data)))
    answers.write(data)
    answers.flush()


if __name__ == "__main__":
    main()

"""Log lines as JSON objects, for programs that collect them: ids, kinds and numbers, no words.

Our own messages are written `event name=%s other=%d`; each name becomes a field. Of another
library's message only the kind and the place are written, since nobody can know what it quotes; of
an error its type and places, not its words.
"""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from pathlib import Path
from typing import Any

from assistant.config import Settings
from safety import pii

OURS = ("assistant", "retrieval", "safety", "rlhf", "app", "__main__")
_FIELD = re.compile(r"(\w+)=%(?:\.\d+)?[sdrfg]")


class JsonFormatter(logging.Formatter):
    """One object a record, on one line. `mask` takes personal data out of a text."""

    def __init__(self, mask: Any) -> None:
        super().__init__()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._said(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            places = traceback.extract_tb(record.exc_info[2])
            line["trace"] = [f"{Path(p.filename).name}:{p.lineno}" for p in places]
        return json.dumps(line, ensure_ascii=False, default=str)

    def _said(self, record: logging.LogRecord) -> dict[str, Any]:
        if record.name.split(".")[0] not in OURS:
            return {"event": "other", "at": f"{record.module}:{record.lineno}"}
        names = _FIELD.findall(str(record.msg))
        values = record.args if isinstance(record.args, tuple) else ()
        if not names or len(names) != len(values):
            return {"event": "message", "text": self._mask(record.getMessage())}
        event = str(record.msg).split(f"{names[0]}=")[0].strip()
        fields = {
            n: v if isinstance(v, int | float) else self._mask(str(v))
            for n, v in zip(names, values, strict=True)
        }
        return {"event": event, **{f"{n}_" if n in _FIXED else n: v for n, v in fields.items()}}


_FIXED = frozenset({"time", "level", "logger", "event", "trace"})


def install(settings: Settings) -> None:
    """Write the root logger's lines as the settings say."""
    if settings.operation.logs != "json":
        return
    finder, kinds = pii.build(settings.safety), settings.safety.pii_logs
    formatter = JsonFormatter(lambda text: finder.mask(text, kinds))
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
    logging.getLogger("assistant.server").setLevel(logging.INFO)

"""Whether this server is alive and ready, and what an operator is shown of it.

One thread makes everything run once, then looks each second at the databases, the disk and the
index, and has the index take up what others committed, so that no question waits for it. Whoever
asks hears what the last look saw; a look that hangs is told by its age.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from assistant.config import Settings
from assistant.dialogue import Assistant
from assistant.live import try_out
from assistant.schema import Reply
from assistant.server.admission import Admission
from assistant.server.engine import Engine
from assistant.server.errors import ApiError
from assistant.server.meter import Meter, Tracer, Uncounted, Untraced
from retrieval import menu, sqlite

logger = logging.getLogger(__name__)

#: Seconds between two looks, and after a warm-up that failed.
LOOK, AGAIN = 1.0, 10.0
#: The same until the port answers.
QUICK = 0.1
#: The thread is waited for no longer than this when the server ends, seconds.
END = 5.0
#: A look or a turn of the event loop older than this hangs, seconds.
STALE = 15.0
#: A worker may go on for so long after its request's time is over, seconds.
LATE = 60.0
#: Below so many free bytes the disk counts as full: an answer could not be kept.
ROOM = 16 * 1024 * 1024
#: Who writes the answer is asked at warm-up, unless that costs money.
PAID = ("remote", "langchain")


class Operation:
    """The state of one server. Safe for several threads."""

    def __init__(
        self, assistant: Assistant, settings: Settings, admission: Admission, engine: Engine
    ) -> None:
        self.draining = False
        #: Requests that came in and are not over, those to /livez and /readyz aside.
        self.open = 0
        self._assistant = assistant
        self._settings = settings
        self._admission = admission
        self._engine = engine
        self._warm = False
        self._seen: list[str] = []
        self._looked = self._beat = 0.0
        self._sequence, self._served, self._lag = -1, -1, 0
        self._counts = (0, 0)
        #: Told when the server answers and everything ran once.
        self.on_ready: Callable[[], None] = lambda: None
        #: Ends the connections that open pages hold, once no answer is under way.
        self.hang_up: Callable[[], None] = lambda: None
        #: Set once the port answers.
        self.listening = threading.Event()
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="operation", daemon=True)
        own = settings.operation
        self.meter: Meter = Uncounted()
        self.tracer: Tracer = Untraced()
        if own.admin_port:
            self.meter = menu.implementation("assistant.server", "metrics").build(self.numbers)
        if own.traces:
            self.tracer = menu.implementation("assistant.server", "tracing").build(own.traces)

    def start(self) -> None:
        """Begin to warm up and to look."""
        self._keeper.start()

    async def beat(self) -> None:
        """Show that the event loop turns, until cancelled."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(LOOK)

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join(END)
        self.tracer.close()

    def drain(self) -> None:
        """Nothing begins from now on; what waits for a worker is refused."""
        self.draining = True
        self._admission.drain()

    def cut(self) -> None:
        """End what is still under way with an error that says to try again."""
        self._engine.cut(
            ApiError(503, "The server went down before the answer ended; try again.", again=True)
        )

    def answered(self, reply: Reply, prompt: int, answer: int) -> None:
        """An answer was made, of so many tokens each way."""
        self.meter.answered(reply, prompt, answer)
        self.tracer.answered(reply)

    # what is asked ------------------------------------------------------------------------------

    def stuck(self) -> str:
        """Why nothing can be answered before a restart; "" where it can."""
        if self._beat and time.monotonic() - self._beat > STALE:
            return "the event loop does not turn"
        late = self._settings.server.seconds + LATE
        return "every worker hangs" if self._engine.hanging(late) else ""

    def unready(self) -> list[str]:
        """Why no requests should be sent here; [] where they should."""
        reasons = ["draining"] if self.draining else []
        if not self._warm:
            return [*reasons, "warming up", *self._seen]
        if time.monotonic() - self._looked > STALE:
            reasons.append("the stores do not answer")
        return reasons + self._seen

    def numbers(self) -> Mapping[str, float]:
        """What is so now, for the metrics."""
        documents, chunks = self._counts
        return {
            "ready": float(not self.unready()),
            "draining": float(self.draining),
            "open_requests": self.open,
            "busy_workers": self._admission.busy,
            "waiting_requests": self._admission.waiting,
            "index_documents": documents,
            "index_chunks": chunks,
            "index_sequence": self._sequence,
            "index_served": self._served,
            "index_lag": self._lag,
        }

    def state(self) -> dict[str, Any]:
        """The same and more, for a person."""
        index = self._assistant.parts.knowledge.status()
        stuck, card = self.stuck(), self._assistant.health().policy
        return {
            "status": "stuck" if stuck else "unready" if self.unready() else "ready",
            "reasons": [stuck] if stuck else self.unready(),
            **self.numbers(),
            "index": {"searched": index.index, "health": index.health, "delta": index.delta},
            "policy": {"name": card.name, "version": card.version},
            "home": str(self._settings.home),
        }

    # the thread ---------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._stop.is_set() and not self._warm:
            try:
                self._warm_up()
                self._warm = not self._stop.is_set()
            except Exception as error:
                logger.error("warm_up_failed error=%s", type(error).__name__)
                self._stop.wait(AGAIN)
            self._look()
        told = False
        while not self._stop.wait(LOOK if told else QUICK):
            if not told and self.listening.is_set():
                told = True
                self.on_ready()
            self._look()

    def _warm_up(self) -> None:
        if self._settings.operation.warm:
            self._assistant.warm()
            if self._settings.policy.backend not in PAID:
                try_out(self._assistant.parts.policy, self._stop.is_set)

    def _look(self) -> None:
        home = self._settings.home
        seen = [f"{name}: {wrong}" for name, wrong in sqlite.probe(home)]
        if shutil.disk_usage(home).free < ROOM:
            seen.append("the disk is full")
        try:
            knowledge = self._assistant.parts.knowledge
            if knowledge.store.broken:
                seen.append("knowledge.db: cannot be written before a restart")
            self._lag = knowledge.behind()
            late = ["the index is behind"] if self._lag > self._settings.operation.max_lag else []
            self._seen = seen + late
            self._served = knowledge.refresh()
            self._lag = knowledge.behind()
            if self._served != self._sequence:
                self._counts = knowledge.store.counts()
            self._sequence = self._served + self._lag
        except Exception as error:
            seen.append("knowledge.db: cannot be searched")
            logger.error("look_failed error=%s", type(error).__name__)
        late = ["the index is behind"] if self._lag > self._settings.operation.max_lag else []
        self._seen = seen + late
        self._looked = time.monotonic()

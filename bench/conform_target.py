"""The servers that conformance is tested on."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assistant.server.principal import SCOPES
from bench.conform_rows import DOCUMENTS, Target
from bench.service import ECHO, fill, key, serving


@contextmanager
def targeted(home: Path) -> Iterator[Target]:
    """A server to test, and one whose policy breaks; both end with this."""
    every = list(SCOPES)
    wide = {**ECHO, "server.key_requests": "1000000", "server.key_tokens": "100000000"}
    with breaking() as upstream:
        broken = {**wide, "policy.backend": "remote", "policy.model": "m", "policy.url": upstream}
        broken |= {"policy.retries": "0", "policy.seconds": "10"}
        usual = key(home, tenant="main", user="ann", scopes=every)
        # the next request of twenty a minute is there after three seconds
        once = key(home, scopes=["chat"], requests=20)
        other = key(home, tenant="bolt", user="ann", scopes=every)
        with serving(home, wide) as service, serving(home, broken) as faulty:
            fill(service, usual, DOCUMENTS)
            yield Target(service.url, usual, once, other, faulty.url)


@contextmanager
def breaking() -> Iterator[str]:
    """An endpoint of a model that hangs up in the middle of an answer; its base URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            for said in ("The widget costs 40 euros. [1] ", "It was made"):
                delta = {"role": "assistant", "content": said}
                choice = {"index": 0, "delta": delta, "finish_reason": None}
                data = json.dumps({**chunk, "choices": [choice]})
                self.wfile.write(f"data: {data}\n\n".encode())
                self.wfile.flush()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()

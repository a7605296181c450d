from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from retrieval.config import EmbedSettings
from retrieval.embed import langchain, remote
from retrieval.errors import BackendMissing, EndpointError, ModelNotFound

KEY = "sk-very-secret-0123456789"
DIM = 3


def vector(text: str) -> list[float]:
    """A direction by the text's length, not of unit length."""
    return [2 * math.sin(len(text)), 2 * math.cos(len(text)), 1.0][:DIM]


class Endpoint(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint; `server.faults` are answered first, one a request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer one request."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.asked.append((body, self.headers["Authorization"]))
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int):
            self.answer(fault, {"error": {"message": f"no; your key is {KEY}"}})
            return
        rows = [
            {"object": "embedding", "index": place, "embedding": vector(text)}
            for place, text in enumerate(body["input"])
        ]
        answer = {"object": "list", "data": rows[::-1], "model": "m", "usage": None}
        self.answer(200, answer if fault is None else fault(answer))

    def answer(self, status: int, values: object) -> None:
        """Send JSON."""
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(*faults: object) -> Iterator[Any]:
    """Serve on loopback."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.faults, server.asked = list(faults), []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def connect(url: str, **values: object) -> remote.RemoteEmbedder:
    """Make the embedder."""
    options = {"backend": "remote", "model": "m", "url": url, "api_key": KEY, **values}
    return remote.build(EmbedSettings.model_validate(options))


def test_vectors_come_in_the_order_asked_and_in_batches() -> None:
    """Unit length, by index and not by place in the answer, `batch_size` texts a request."""
    texts = ["a" * n for n in range(1, 6)]
    with serving() as server:
        embedder = connect(server.url, dimensions=DIM, batch_size=2)
        vectors = embedder.embed(texts, "passage")
        sizes = [len(body["input"]) for body, _ in server.asked]
        keys = {key for _, key in server.asked}
    expected = np.array([vector(t) for t in texts], dtype=np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert (sizes, keys, server.asked[0][0]["dimensions"]) == ([2, 2, 1], {f"Bearer {KEY}"}, DIM)


def test_the_length_of_a_vector_is_learned_once() -> None:
    """Without the setting, one text is embedded at the start; prompts stand before the text."""
    with serving() as server:
        embedder = connect(server.url, query_prompt="query: ")
        embedder.embed(["port"], "query")
        embedder.embed(["", "half a pair \ud800"], "passage")
        asked = [body["input"] for body, _ in server.asked]
    assert (embedder.dim, asked) == (DIM, [["dimension"], ["query: port"], [".", "half a pair ?"]])


def test_what_may_pass_is_asked_again() -> None:
    """Overload and failures inside are retried as often as the setting says."""
    with serving(429, 503) as server:
        vectors = connect(server.url, dimensions=DIM, retries=2).embed(["a"], "query")
        count = len(server.asked)
    assert (vectors.shape, count) == ((1, DIM), 3)


@pytest.mark.parametrize(
    ("fault", "says", "retryable"),
    [
        (401, r"HTTP 401.*retrieval\.embed\.api_key", False),
        (404, r"HTTP 404.*retrieval\.embed\.model and retrieval\.embed\.url", False),
        (429, r"HTTP 429.*batch_size", True),
        (500, r"HTTP 500.*own log", True),
        (lambda a: {**a, "data": a["data"][:1]}, r"1 vectors of 3 numbers for 2 texts", False),
        (
            lambda a: {**a, "data": [{**row, "embedding": [1.0]} for row in a["data"]]},
            r"2 vectors of 1 numbers for 2 texts, expected 3",
            False,
        ),
        (
            lambda a: {**a, "data": [{**row, "embedding": [0, 0, 0]} for row in a["data"]]},
            "nothing in them",
            False,
        ),
        (
            lambda a: {**a, "data": [{**row, "embedding": ["x"] * 3} for row in a["data"]]},
            "something else than lists",
            False,
        ),
        (lambda a: {"data": []}, "no embeddings|something else", False),
        (lambda a: "hello", "no embeddings|something else", False),
    ],
)
def test_a_failure_names_the_endpoint_and_the_remedy(
    fault: object, says: str, retryable: bool
) -> None:
    """What came back instead, whether it may pass, and never the key."""
    with serving(fault) as server:
        embedder = connect(server.url, dimensions=DIM, retries=0)
        with pytest.raises(EndpointError, match=says) as caught:
            embedder.embed(["a", "b"], "passage")
    got = (caught.value.retryable, KEY in str(caught.value), "127.0.0.1" in str(caught.value))
    assert got == (retryable, False, True)


def test_an_endpoint_that_is_not_there_is_named() -> None:
    """Unreachable now is retryable; an address that is none is not."""
    with serving() as server:
        url = server.url
    with pytest.raises(EndpointError, match=r"cannot be reached.*retrieval\.embed\.url") as gone:
        connect(url, retries=0)
    with pytest.raises(EndpointError, match="no http") as wrong:
        connect("localhost")
    with pytest.raises(EndpointError, match=r"retrieval\.embed\.model is empty"):
        connect(url, model="")
    assert (gone.value.retryable, wrong.value.retryable) == (True, False)


class Broken(Embeddings):
    """Gives what it was told to."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """See `Embeddings`."""
        return self.rows

    def embed_query(self, text: str) -> list[float]:
        """See `Embeddings`."""
        return [1.0, 0.0, 0.0]


def test_langchain_embeddings_are_an_embedder() -> None:
    """Unit length, in order, over batches; the name is the identity."""
    model = DeterministicFakeEmbedding(size=5)
    embedder = langchain.LangChainEmbedder(model, "fake@1", batch_size=2)
    texts = ["a", "b", "c"]
    vectors = embedder.embed(texts, "passage")
    raw = np.array(model.embed_documents(texts), dtype=np.float32)
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    got = (embedder.id, embedder.dim, embedder.embed([], "query").shape, embedder.reads("中文"))
    assert got == ("langchain:fake@1", 5, (0, 5), True)


@pytest.mark.parametrize(
    "rows", [[[1.0, 0.0, 0.0]], [[1.0], [2.0]], [[0.0] * 3] * 2, [[math.nan] * 3] * 2]
)
def test_langchain_vectors_that_are_none_are_refused(rows: list[list[float]]) -> None:
    """Too few, too short or empty: named, not stored."""
    embedder = langchain.LangChainEmbedder(Broken(rows), "broken")
    with pytest.raises(EndpointError, match="langchain:broken gave"):
        embedder.embed(["a", "b"], "passage")


def test_an_unknown_provider_is_named() -> None:
    """The model's name, and how to write it."""
    with pytest.raises(ModelNotFound, match=r"nonsense.*provider:model"):
        langchain.build(EmbedSettings(model="nonsense"))
    with pytest.raises(BackendMissing, match=r"ollama:bge-m3.*install the provider's package"):
        langchain.build(EmbedSettings(model="ollama:bge-m3"))

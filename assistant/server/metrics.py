"""Counts in Prometheus' form. Labels are routes, states and outcomes: never words of anybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric

from assistant.schema import Reply
from assistant.server.meter import Done

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
State = Callable[[], Mapping[str, float]]
_HELP = {
    "ready": "1 while /readyz says 200",
    "draining": "1 once the server was told to end",
    "open_requests": "requests that came in and are not over",
    "busy_workers": "workers that make an answer",
    "waiting_requests": "requests that wait for a worker",
    "index_documents": "documents in the database",
    "index_chunks": "chunks in the database",
    "index_sequence": "last change in the database",
    "index_served": "last change in what is searched",
    "index_lag": "changes in the database and not yet in what is searched",
}


class Prometheus:
    """A meter with a registry of its own; `state` gives the gauges when they are asked for."""

    def __init__(self, state: State) -> None:
        own = self._registry = CollectorRegistry()
        self._requests = Counter(
            "plumbline_requests",
            "Requests that are over",
            ("route", "method", "status"),
            registry=own,
        )
        self._seconds = Histogram(
            "plumbline_request_seconds",
            "From a request's first byte to its answer's last",
            ("route",),
            buckets=SECONDS,
            registry=own,
        )
        self._first = Histogram(
            "plumbline_first_byte_seconds",
            "From a request's first byte to its answer's first",
            ("route",),
            buckets=SECONDS,
            registry=own,
        )
        self._answers = Counter(
            "plumbline_answers", "Answers by what came of them", ("outcome",), registry=own
        )
        self._tokens = Counter("plumbline_tokens", "Tokens of answers", ("kind",), registry=own)
        self._steps = Histogram(
            "plumbline_step_seconds",
            "Steps of answers",
            ("step",),
            buckets=SECONDS,
            registry=own,
        )
        ProcessCollector(registry=own)
        own.register(_Gauges(state))

    def request(self, done: Done) -> None:
        """Count a request."""
        self._requests.labels(done.route, done.method, str(done.status)).inc()
        self._seconds.labels(done.route).observe(done.seconds)
        if done.first is not None:
            self._first.labels(done.route).observe(done.first)

    def answered(self, reply: Reply, prompt: int, answer: int) -> None:
        """Count an answer."""
        self._answers.labels(reply.outcome).inc()
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("answer").inc(answer)
        for step in reply.steps:
            self._steps.labels(step.name).observe(step.seconds)

    def page(self) -> tuple[bytes, str]:
        """The text that Prometheus reads."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Gauges:
    """What is so now, asked for at each scrape."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """One gauge each."""
        for name, value in self._state().items():
            yield GaugeMetricFamily(f"plumbline_{name}", _HELP[name], value=value)


def build(state: State) -> Prometheus:
    """The meter of a server."""
    return Prometheus(state)

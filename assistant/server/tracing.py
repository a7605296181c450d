"""Traces by OpenTelemetry, sent to one collector by OTLP over HTTP.

A span is a request, with a span for each step of its answer; a `traceparent` that came with the
request is gone on with. The names are our own: those proposed for generative models still change.
No attribute holds words of a question, of an answer or of a document.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from assistant.schema import Reply
from assistant.server.meter import Done

BILLION = 1_000_000_000


class OpenTelemetry:
    """A tracer with a provider of its own, so that the program's, if any, stays as it is."""

    def __init__(self, address: str) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": "plumbline"}))
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(address, timeout=5), schedule_delay_millis=1000)
        )
        self._tracer = self._provider.get_tracer("plumbline")
        self._sent = TraceContextTextMapPropagator()

    @contextmanager
    def request(
        self, headers: Mapping[str, str], method: str
    ) -> Iterator[Callable[[Done, str], None]]:
        """A span around a request; current in it, and in the worker that answers it."""
        given = self._sent.extract({k: v for k, v in headers.items() if k.startswith("trace")})
        kind = trace.SpanKind.SERVER
        with self._tracer.start_as_current_span(
            method,
            context=given,
            kind=kind,
            record_exception=False,  # its words may be a user's
            set_status_on_exception=False,
        ) as span:

            def ended(done: Done, request_id: str) -> None:
                span.update_name(f"{method} {done.route}" if done.route else method)
                span.set_attribute("http.request.method", method)
                span.set_attribute("http.route", done.route)
                span.set_attribute("http.response.status_code", done.status)
                span.set_attribute("plumbline.request_id", request_id)
                if done.first is not None:
                    span.set_attribute("plumbline.first_byte_seconds", done.first)
                if done.status >= 500:
                    span.set_status(trace.StatusCode.ERROR)

            yield ended

    def answered(self, reply: Reply) -> None:
        """A span for each step, one after the other as they were measured."""
        at = time.time_ns() - round(sum(s.seconds for s in reply.steps) * BILLION)
        for step in reply.steps:
            span = self._tracer.start_span(step.name, start_time=at)
            at += round(step.seconds * BILLION)
            span.end(at)
        now = trace.get_current_span()
        now.set_attribute("plumbline.outcome", reply.outcome)
        now.set_attribute("plumbline.policy", reply.policy.name)

    def close(self) -> None:
        """Send what is left, for some seconds at most."""
        self._provider.shutdown()


def build(address: str) -> OpenTelemetry:
    """The tracer of a server."""
    return OpenTelemetry(address)

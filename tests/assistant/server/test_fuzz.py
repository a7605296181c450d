"""Generated requests on every route of the OpenAPI description, by schemathesis."""

from __future__ import annotations

import pytest

from bench import fuzz
from tests.assistant.server.conftest import Start


@pytest.mark.parametrize("keyed", [True, False])
def test_the_description_is_kept(start: Start, keyed: bool) -> None:
    """No generated request breaks the server or gets what the description does not say."""
    running = start(server__key_requests=1_000_000, server__key_tokens=1_000_000_000)
    reader = running.key(scopes=["chat", "search", "documents", "ingest", "embed", "moderate"])
    assert fuzz.run(running.url, reader, reader if keyed else "", examples=2) == ""

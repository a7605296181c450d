"""The command that makes, lists and takes back keys."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from assistant.commands import keys
from tests.assistant.server.conftest import keys_of, small


def test_a_key_is_made_listed_and_taken_back(tmp_path: Path) -> None:
    """A new key stands alone on its line and opens; its whole id is listed, and revokes it."""
    settings = small(tmp_path / "home")
    parser = argparse.ArgumentParser()
    keys.arguments(parser)

    def run(*words: str) -> str:
        out = Console(width=80, record=True, quiet=False, file=(tmp_path / "out").open("w"))
        assert keys.run(parser.parse_args(words), settings, out) == 0
        return out.export_text()

    key = run("create", "bot", "--tenant", "acme", "--scopes", "chat,search").strip()
    store = keys_of(settings.home)
    found = store.find(key)
    assert found is not None
    assert found.tenant == "acme"
    assert found.key in run("list")
    run("revoke", found.key)
    assert store.find(key) is None

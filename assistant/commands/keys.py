"""Makes, lists and takes back the keys of the HTTP API."""

from __future__ import annotations

import argparse
import time

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from assistant.config import Settings
from assistant.errors import ConfigError
from assistant.server.keys import FILE, KeyStore
from assistant.server.principal import MAIN, SCOPES, USUAL

HELP = "make, list and revoke keys of the HTTP API"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and for a new key whom it is for."""
    parser.add_argument("what", choices=["create", "list", "revoke"])
    parser.add_argument("name", nargs="?", default="", help="what it is for; the id, to revoke it")
    parser.add_argument("--tenant", default=MAIN, help="whose documents and conversations")
    parser.add_argument("--user", default="", help="who asks with it; one of its own")
    parser.add_argument("--groups", default="", metavar="A,B", help="the user's groups")
    parser.add_argument("--scopes", default=",".join(USUAL), metavar="A,B", help=", ".join(SCOPES))
    parser.add_argument("--days", type=float, help="until it ends; else never")
    parser.add_argument("--requests", type=int, default=0, help="a minute; else as set")
    parser.add_argument("--tokens", type=int, default=0, help="a minute; else as set")


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Carry it out; a new key is printed alone on its line, and never again."""
    store = KeyStore(settings.home / FILE)
    try:
        if options.what == "create":
            out.print(_create(options, store), markup=False, highlight=False, soft_wrap=True)
        elif options.what == "revoke":
            card = store.revoke(options.name)
            out.print(f"key {card.id} ({escape(card.name)}) opens nothing any more.")
        else:
            _list(store, out)
    finally:
        store.close()
    return 0


def _create(options: argparse.Namespace, store: KeyStore) -> str:
    if not options.name:
        raise ConfigError("say what the key is for: keys create NAME")
    return store.create(
        options.name,
        tenant=options.tenant,
        user=options.user,
        groups=_words(options.groups),
        scopes=_words(options.scopes),
        days=options.days,
        requests=options.requests,
        tokens=options.tokens,
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _list(store: KeyStore, out: Console) -> None:
    whole = Column("id", min_width=12)  # it is copied to revoke the key
    table = Table(whole, "name", "tenant", "user", "groups", "scopes", "made", "state", box=None)
    for card in store.cards():
        state = "alive" if card.alive else "revoked" if card.revoked else "ended"
        made = time.strftime("%Y-%m-%d", time.localtime(card.created))
        groups, scopes = ",".join(card.groups), ",".join(card.scopes)
        row = (card.id, card.name, card.tenant, card.user, groups, scopes, made, state)
        table.add_row(*(escape(cell) for cell in row))
    out.print(table)

"""E-mail messages: who wrote what to whom and when, the text, and the names of attachments."""

from __future__ import annotations

from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from itertools import groupby, islice
from pathlib import Path

from retrieval.config import ParseSettings
from retrieval.parse._decode import decode
from retrieval.parse.base import TextBuilder, one_line, refuse
from retrieval.parse.table import record
from retrieval.parse.text import append_paragraphs
from retrieval.parse.web import append_fragment
from retrieval.schema import Parsed

SUFFIXES: tuple[str, ...] = (".eml",)

_HEADERS = ("From", "To", "Cc", "Date")
#: Parts beyond which a message is an attack.
_PARTS = 1_000


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read a message (RFC 5322, MIME); see `retrieval.parse.base` for the contract."""
    message = BytesParser(_class=EmailMessage, policy=policy.default).parsebytes(path.read_bytes())
    if not any(name in message for name in ("From", "Subject", "Date", "Message-ID")):
        raise refuse(path, "broken", "it has no header of a message")
    builder = TextBuilder(path, settings)
    _append(path, builder, message, 1)
    return builder.build(_header(message, "Subject"))


def _append(path: Path, builder: TextBuilder, message: EmailMessage, level: int) -> None:
    builder.heading(level, _header(message, "Subject"))
    builder.row([record((name, _header(message, name)) for name in _HEADERS)])
    body = message.get_body(("plain", "html"))
    if isinstance(body, EmailMessage):
        text = _text(path, builder, body)
        if body.get_content_subtype() == "html":
            append_fragment(builder, text)
        else:
            _append_plain(builder, text)
    for part in islice(message.iter_attachments(), _PARTS):
        inner = part.get_payload()
        if part.get_content_type() == "message/rfc822" and isinstance(inner, list) and level < 6:
            forwarded = inner[0]
            if isinstance(forwarded, EmailMessage):
                _append(path, builder, forwarded, level + 1)
        elif name := part.get_filename():
            builder.list_item(name)
            builder.notes.append(f"the attachment {one_line(name)} was not read; save it as a file")


def _header(message: EmailMessage, name: str) -> str:
    """Return a decoded header; one that cannot be decoded is left out."""
    try:
        return one_line(str(message.get(name, "")))
    except (ValueError, IndexError, AttributeError):  # the library fails on malformed addresses
        return ""


def _text(path: Path, builder: TextBuilder, part: EmailMessage) -> str:
    data = part.get_payload(decode=True)
    charset = part.get_content_charset() or ""
    return decode(path, data, charset, builder.notes) if isinstance(data, bytes) else ""


def _append_plain(builder: TextBuilder, text: str) -> None:
    """Append plain text; what it quotes of earlier messages is marked as a quote."""
    for quoted, lines in groupby(_signed(text), key=lambda line: line.startswith(">")):
        if quoted:
            builder.paragraph("\n".join(line.lstrip("> ") for line in lines), "quote")
        else:
            append_paragraphs(builder, "\n".join(lines))


def _signed(text: str) -> Iterator[str]:
    """Yield lines up to the signature."""
    for line in text.replace("\r\n", "\n").split("\n"):
        if line == "-- ":
            return
        yield line

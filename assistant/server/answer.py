"""One chat request, answered: a generator that runs in a worker from first to last."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from assistant.errors import ConversationNotFound
from assistant.schema import Citation, Reply
from assistant.server.base import Server
from assistant.server.cut import Cut
from assistant.server.errors import ApiError
from assistant.server.principal import Principal
from assistant.server.reading import Ask
from assistant.server.shelf import id_of, uploaded
from safety.links import neutralise

Finish = Literal["stop", "length", "content_filter"]
#: Outcomes that are refusals to clients.
REFUSED = ("refused", "crisis")
_MARK = re.compile(r"\[(\d{1,4})\]")
_ADDRESS = re.compile(r"https?://", re.I)
_SOURCES = {"en": "Sources", "zh": "来源"}


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of choice `index` that may be shown."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A finished choice. `content` is all that was shown of it; indices count its characters."""

    index: int
    content: str
    refusal: str | None
    finish: Finish
    reply: Reply
    citations: tuple[dict[str, Any], ...]
    annotations: tuple[dict[str, Any], ...]
    prompt_tokens: int
    tokens: int


def answer(
    server: Server,
    who: Principal,
    ask: Ask,
    response_id: str,
    base: str,
    stopped: Callable[[], bool],
) -> Iterator[Piece | Choice]:
    """Pieces and choices; the answer is on record before its last choice comes out.

    Citations have addresses below `base`.

    Raises:
        ApiError: there is no such conversation, or the policy failed.
    """
    made: list[Choice] = []
    for index in range(ask.n):
        choice: Choice | None = None
        first = made[0].reply if made else None
        name = f"{response_id}-{index}"
        for item in _choice(server, who, ask, index, name, base, stopped, first):
            if isinstance(item, Choice):
                choice = item
            else:
                yield item
        assert choice is not None
        made.append(choice)
        server.operation.answered(choice.reply, choice.prompt_tokens, choice.tokens)
        if index == ask.n - 1:
            replies = [c.reply for c in made]
            server.records.add(response_id, who.owner, replies, stored=ask.told is None)
        yield choice


def _choice(
    server: Server,
    who: Principal,
    ask: Ask,
    index: int,
    name: str,
    base: str,
    stopped: Callable[[], bool],
    first: Reply | None,
) -> Iterator[Piece | Choice]:
    count = server.assistant.parts.policy.count_tokens
    cut = Cut(ask.stops, ask.limit, count)
    raw, reply = "", None
    try:
        for event in server.assistant.stream(
            ask.question,
            conversation_id=ask.conversation_id,
            user_id=who.owner,
            surface="http",
            readers=who.readers,
            history=ask.told,
            keep=ask.told is None,
            stopped=stopped,
            wish=replace(ask.wish, variant=index),
            beside=first,
        ):
            if event.text and ask.stream:
                raw += event.text
                if text := cut.feed(event.text):
                    yield Piece(index, text)
            reply = event.reply or reply
    except ConversationNotFound:
        raise ApiError(
            404,
            "There is no such conversation; POST /v1/conversations begins one.",
            "conversation_not_found",
            "conversation_id",
        ) from None
    assert reply is not None
    if reply.outcome == "failed":
        raise ApiError(500, "The policy did not answer; try again, or ask the operator.")
    yield from _ended(ask, index, name, base, cut, raw, reply, count_of=count)


def _ended(
    ask: Ask, index: int, name: str, base: str, cut: Cut, raw: str, reply: Reply, count_of: Any
) -> Iterator[Piece | Choice]:
    refused = reply.outcome in REFUSED
    finish: Finish = "content_filter" if refused else "stop"
    if refused:
        # clients that know no refusals show the content: it must not be empty
        text = reply.text if not cut.text else ""
        cut.text += text
    else:
        text = cut.feed(_rest(reply.text, raw)) + cut.finish()
        if cut.ended == "length" or reply.finish == "length":
            finish = "length"
    cited = _cited(reply.citations if not refused else (), cut.text, name, base)
    if ask.markdown and cited:
        more = f"\n\n{_SOURCES.get(reply.language, 'Sources')}:\n{_listed(cited)}"
        text, cut.text = text + more, cut.text + more
    if text:
        yield Piece(index, text)
    told = "\n".join(m.text for m in ask.told or ())
    yield Choice(
        index=index,
        content=cut.text,
        refusal=reply.text if refused else None,
        finish=finish,
        reply=reply,
        citations=cited,
        annotations=_annotations(cited, cut.text),
        prompt_tokens=reply.usage.prompt if reply.usage else count_of(f"{told}\n{ask.question}"),
        tokens=reply.usage.answer if reply.usage else count_of(cut.text),
    )


def _listed(cited: tuple[dict[str, Any], ...]) -> str:
    """The sources as lines; what a title would make a front end fetch goes, as in the text."""
    lines = "\n".join(f"[{c['number']}] {' '.join(c['title'].split())} – {c['url']}" for c in cited)
    return neutralise(lines, frozenset(c["url"] for c in cited))[0]


def _rest(final: str, shown: str) -> str:
    """What is still to be said of a finished answer; all of it where it says something else."""
    if not shown:
        return final
    before, found, after = final.partition(shown)
    aside = (before if found else final).strip()
    return after + (f"\n\n{aside}" if aside else "")


def _cited(
    citations: tuple[Citation, ...], text: str, name: str, base: str
) -> tuple[dict[str, Any], ...]:
    """The citations whose mark stands in the text."""
    marked = {int(number) for number in _MARK.findall(text)}
    return tuple(citation_of(c, name, base) for c in citations if c.number in marked)


def citation_of(citation: Citation, name: str, base: str) -> dict[str, Any]:
    """A citation as clients get it; where a file lies on the server is nobody's business."""
    number = f"cit-{name}-{citation.number}"
    source = place_of(citation.source)
    return {
        "id": number,
        "number": citation.number,
        "title": title_of(citation.title, source),
        "url": f"{base}/v1/citations/{number}",
        "source": source,
        "headings": list(citation.headings),
        "quote": citation.quote,
        "document_id": document_of(citation.source, citation.document_id),
        "chunk_id": str(citation.chunk_id),
        "start": citation.start,
        "end": citation.end,
        "verbatim": citation.verbatim,
        "version": citation.version,
        "modified": citation.modified,
        "score": citation.score,
    }


def title_of(title: str, source: str) -> str:
    """A document's title as words, or where none are left its place; no front end loads of it."""
    named = (neutralise(name, frozenset())[0].strip() for name in (title, source))
    return next(filter(None, named), "–")


def place_of(source: str) -> str:
    """Where a document comes from: its address, or its name alone."""
    if (own := uploaded(source)) is not None:
        return own[1]
    return source if _ADDRESS.match(source) else source.rsplit("/", 1)[-1].rsplit(":", 1)[-1]


def document_of(source: str, number: int) -> str:
    """A document's id: the one at /v1/documents where it came in there."""
    own = uploaded(source)
    return str(number) if own is None else id_of(*own)


def _annotations(cited: tuple[dict[str, Any], ...], text: str) -> tuple[dict[str, Any], ...]:
    """A url_citation for each mark in the text, by its characters."""
    known = {c["number"]: c for c in cited}
    kept = ("document_id", "chunk_id", "quote", "score", "number", "id")
    made = []
    for mark in _MARK.finditer(text):
        found = known.get(int(mark[1]))
        if found is not None:
            place = {"start_index": mark.start(), "end_index": mark.end()}
            about = {"title": found["title"], "url": found["url"]}
            own = {name: found[name] for name in kept}
            made.append({"type": "url_citation", "url_citation": {**place, **about, **own}})
    return tuple(made)

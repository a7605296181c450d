"""The right of the page: the sources of one answer, and why it was given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from assistant.phrases import told
from assistant.schema import Citation, Excerpt, Reply
from assistant.ui.render import anchor, escape, page
from assistant.ui.strings import Language, ago, date, known, say, span
from retrieval.schema import Passage

#: The root of uploaded files, and the scheme of their names (`retrieval.knowledge.UPLOADS`).
UPLOADS = "upload"

_STAGES = ("reranked", "fused", "dense", "lexical")
_CROWD = 6
#: Characters shown around a quote; a Chinese character says more than a letter does.
_AROUND, _AROUND_DENSE = 140, 56
_DENSE = re.compile(r"[\u3400-\u9fff]")
_FIRST, _LAST = re.compile(r"^[!-~]*\s"), re.compile(r"\s[!-~]*$")
_LINES = re.compile(r"\s*\n\s*")


def panel(reply: Reply | None, excerpts: Mapping[int, Excerpt | None], language: Language) -> str:
    """Sources and reasons. `excerpts` by citation number; None where the document is gone."""
    if reply is None:
        return blank("no_sources", language)
    cards = "".join(
        _card(citation, excerpts.get(citation.number), reply.turn_id, language)
        for citation in reply.citations
    )
    if not cards:
        cards = f'<p class="pl-empty">{escape(say(language, "no_citations"))}</p>'
    return page(
        f'<section class="pl-panel" data-turn="{escape(reply.turn_id)}">{_title(language)}'
        f'<div class="pl-cards">{cards}</div>{_why(reply, language)}</section>'
    )


def blank(why: str, language: Language) -> str:
    """The panel with nothing in it but a sentence on what it is for, or why it waits."""
    return page(
        f'<section class="pl-panel">{_title(language)}'
        f'<p class="pl-empty">{escape(say(language, why))}</p></section>'
    )


def short(source: str) -> str:
    """The last part of a path or address: what people call the file."""
    source = source.removeprefix(f"{UPLOADS}:")
    return source.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or source


def step_name(name: str, language: Language) -> str:
    """A step as the user reads it; one that nobody translated keeps its own name."""
    plain, _, again = name.partition(" (")
    words = known(language, f"step_{plain.replace(' ', '_')}", plain)
    return f"{words} ({say(language, again.rstrip(')').replace(' ', '_'))})" if again else words


def _title(language: Language) -> str:
    return f'<h2 class="pl-heading">{escape(say(language, "sources"))}</h2>'


def _card(citation: Citation, excerpt: Excerpt | None, turn_id: str, language: Language) -> str:
    name = short(citation.source)
    title = citation.title or name
    path = " › ".join(escape(h) for h in citation.headings if h != title)
    quoted = f"<mark>{escape(citation.quote)}</mark>"
    badge = ""
    if excerpt is None:
        badge = f'<span class="pl-badge">{escape(say(language, "document_gone"))}</span>'
    else:
        before, after = _around(excerpt)
        quoted = f"{escape(before)}<mark>{escape(excerpt.quote)}</mark>{escape(after)}"
        if not excerpt.current:
            info = escape(say(language, "old_version_info"))
            label = escape(say(language, "old_version"))
            badge = f'<span class="pl-badge" title="{info}">{label}</span>'
    label = say(language, "source_number", n=citation.number, title=title)
    file = f'<div class="pl-file">{escape(name)}</div>' if name != title else ""
    return (
        f'<article class="pl-card" id="{anchor(turn_id, citation.number)}" tabindex="-1" '
        f'aria-label="{escape(label)}"><header><span class="pl-number">{citation.number}</span>'
        f'<div class="pl-names"><div class="pl-name">{escape(title)}</div>{file}</div>{badge}'
        f"</header>{f'<div class=pl-path>{path}</div>' if path else ''}"
        f'<div class="pl-excerpt" dir="auto">{quoted}</div>'
        f"{_kin(citation, language)}<footer>{_dates(citation, language)}</footer></article>"
    )


def _kin(citation: Citation, language: Language) -> str:
    """Other sources of the same text, and older versions that say something else."""
    lines = [
        say(language, "older_differs", name=short(old.source), date=date(language, old.modified))
        for old in citation.older
    ]
    if citation.also:
        names = ", ".join(dict.fromkeys(map(short, citation.also)))
        lines.append(say(language, "also_in", names=names))
    return "".join(f'<div class="pl-file">{escape(line)}</div>' for line in lines)


def _around(excerpt: Excerpt) -> tuple[str, str]:
    """A little of what stands before and after the quote, cut between words."""
    size = _AROUND_DENSE if _DENSE.search(excerpt.quote) else _AROUND
    before, after = excerpt.before[-size:], excerpt.after[:size]
    if len(excerpt.before) > size:
        before = "… " + _FIRST.sub("", before)
    if len(excerpt.after) > size:
        after = _LAST.sub("", after) + " …"
    return _LINES.sub("\n", before), _LINES.sub("\n", after)


def _dates(citation: Citation, language: Language) -> str:
    dated = escape(say(language, "document_date", date=date(language, citation.modified)))
    version = escape(say(language, "version_short", id=citation.version[:8]))
    taken = escape(say(language, "indexed_date", ago=ago(language, citation.indexed)))
    return (
        f'<time datetime="{_iso(citation.modified)}">{dated}</time>'
        f'<span aria-hidden="true">·</span><time datetime="{_iso(citation.indexed)}">{taken}</time>'
        f'<span aria-hidden="true">·</span><span>{version}</span>'
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(max(0.0, seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _why(reply: Reply, language: Language) -> str:
    return (
        f'<details class="pl-why"><summary>{escape(say(language, "why"))}</summary><dl>'
        f"{_search(reply, language)}{_policy(reply, language)}</dl>"
        f"{_steps(reply, language)}{_passages(reply.passages, language)}"
        f"{_checks(reply, language)}</details>"
    )


def _pair(term: str, value: str) -> str:
    return f"<dt>{escape(term)}</dt><dd>{value}</dd>"


def _search(reply: Reply, language: Language) -> str:
    meant = reply.understanding
    if not meant.query:
        return _pair(say(language, "searched"), escape(say(language, "not_searched")))
    note = f"<small>{escape(say(language, 'rewritten'))}</small>" if meant.rewritten else ""
    return _pair(say(language, "searched"), f"<span>{escape(meant.query)}</span>{note}")


def _policy(reply: Reply, language: Language) -> str:
    card = reply.policy
    name = card.name if card.model in ("", card.name) else f"{card.name} · {short(card.model)}"
    name += f" · {card.version}" if card.version else ""
    rows = _pair(say(language, "policy"), escape(name))
    if reply.confidence is not None:
        rows += _pair(say(language, "confidence"), f"{reply.confidence:.0%}")
    return rows


def _steps(reply: Reply, language: Language) -> str:
    rows = "".join(
        f"<tr><td>{escape(step_name(step.name, language))}"
        f'<small>{escape(told(step.detail, language))}</small></td><td class="pl-num">'
        f"{escape(span(language, step.seconds))}</td></tr>"
        for step in reply.steps
    )
    total = (
        f"<tr class='pl-total'><td>{escape(say(language, 'total'))}</td>"
        f'<td class="pl-num">{escape(span(language, reply.seconds))}</td></tr>'
    )
    return _section(say(language, "steps"), f"<table><tbody>{rows}{total}</tbody></table>")


def _passages(passages: tuple[Passage, ...], language: Language) -> str:
    if not passages:
        return ""
    heads = "".join(
        f'<th class="pl-num">{escape(say(language, f"stage_{stage}"))}</th>' for stage in _STAGES
    )
    rows = "".join(_passage(passage, language) for passage in passages)
    return _section(
        say(language, "found"),
        f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>",
    )


def _passage(passage: Passage, language: Language) -> str:
    scores = {found.stage: found.score for found in passage.found_by}
    scores.setdefault("fused", passage.score)
    cells = "".join(
        f'<td class="pl-num">{f"{scores[stage]:.2f}" if stage in scores else "–"}</td>'
        for stage in _STAGES
    )
    where = " › ".join(passage.chunk.headings) or passage.title or short(passage.source)
    file = f"{short(passage.source)} · {date(language, passage.modified)}"
    return f"<tr><td>{escape(where)}<small>{escape(file)}</small></td>{cells}</tr>"


def _checks(reply: Reply, language: Language) -> str:
    if not reply.verdicts:
        return ""
    notable = [v for v in reply.verdicts if v.action != "allow"]
    rows = "".join(
        f"<li><span>{escape(say(language, f'side_{v.side}'))}: "
        f"{escape(say(language, f'action_{v.action}'))}</span>"
        f"<small>{escape(v.moderator)} · {escape(v.reason or v.category)} · {v.score:.2f}</small>"
        f"</li>"
        for v in notable[:_CROWD]
    )
    if not rows:
        rows = f"<li>{escape(say(language, 'all_clear'))}</li>"
    return _section(say(language, "checks"), f'<ul class="pl-checks">{rows}</ul>')


def _section(title: str, body: str) -> str:
    return f"<section><h3>{escape(title)}</h3>{body}</section>"

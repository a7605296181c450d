"""Text in, safe HTML out: the only place where words become markup.

Two passes, both allow lists. `answer` turns an answer's text into markup that can hold no link
but our own citation anchors, no image, no attribute of the writer's choosing. `page` cleans a
whole region built by the templates of this package just before it leaves the server. A region is
one line of HTML, so that the Markdown component which carries it finds nothing to interpret.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

from assistant.schema import Citation, Reply
from assistant.ui.strings import Language, say

_MARK = re.compile(r"\[(\d{1,3})\]")
_FENCE = re.compile(r"^```\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
_QUOTED_TAG = re.compile(r"`((?:&lt;(?:(?!&gt;|`).){1,240}&gt;)+)`")
_ANCHOR = re.compile(r"#cite-[A-Za-z0-9_-]+")
_UNSAFE_ID = re.compile(r"[^A-Za-z0-9]")

_ANSWER_TAGS = set(
    [
        "p",
        "br",
        "hr",
        "em",
        "strong",
        "s",
        "code",
        "pre",
        "blockquote",
        "ul",
        "ol",
        "li",
        "h3",
        "h4",
        "h5",
        "h6",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    ]
)
_PAGE_TAGS = _ANSWER_TAGS | set(
    [
        "div",
        "span",
        "section",
        "article",
        "header",
        "footer",
        "nav",
        "h2",
        "dl",
        "dt",
        "dd",
        "mark",
        "small",
        "time",
        "button",
        "details",
        "summary",
        "textarea",
        "input",
        "label",
        "fieldset",
        "legend",
        "progress",
        "a",
    ]
)
_CITE = {"a": {"class", "href"}}
_PAGE_ATTRIBUTES = {
    "*": {"class", "id", "lang", "role", "title", "hidden", "tabindex"},
    "a": {"href"},
    "button": {"type", "disabled"},
    "details": {"open"},
    "input": {"type", "value", "maxlength"},
    "label": {"for"},
    "ol": {"start"},
    "progress": {"value", "max"},
    "textarea": {"rows", "maxlength", "placeholder"},
    "time": {"datetime"},
}

_CHART_TAGS = {"svg", "g", "path", "circle", "rect", "text", "figure", "figcaption"}
_CHART_ATTRIBUTES = {
    "svg": {"viewBox"},
    "path": {"d"},
    "circle": {"cx", "cy", "r"},
    "rect": {"x", "y", "width", "height", "rx"},
    "text": {"x", "y", "text-anchor"},
    "th": {"scope"},
}

_markdown = (
    MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True})
    .enable(["table", "strikethrough"])
    .disable(["link", "image", "autolink", "reference", "html_inline", "html_block"])
)


def escape(text: object) -> str:
    """`text` with everything that could be markup made harmless, also inside attributes."""
    return html.escape(str(text), quote=True)


def page(markup: str) -> str:
    """A whole region, cleaned, on one line. Empty stays empty."""
    return _clean(markup, _PAGE_TAGS, _PAGE_ATTRIBUTES, {"data-", "aria-"})


def page_with_charts(markup: str) -> str:
    """`page` for a region that may hold drawings of ours (see `charts`) beside words."""
    attributes = _PAGE_ATTRIBUTES | _CHART_ATTRIBUTES
    return _clean(markup, _PAGE_TAGS | _CHART_TAGS, attributes, {"data-", "aria-"})


def anchor(turn_id: str, number: int) -> str:
    """The id of a source card: `cite-<turn>-<number>`."""
    return f"cite-{_UNSAFE_ID.sub('_', turn_id)}-{number}"


def answer(
    text: str,
    *,
    citations: Sequence[Citation] = (),
    turn_id: str = "",
    language: Language = "en",
    linked: bool = True,
) -> str:
    """An answer's text as HTML; `[n]` of a known citation becomes a link to its source card.

    Words quoted verbatim are shown as they stand (`__init__` keeps its underscores); an answer
    that a policy wrote itself may use Markdown. `linked=False` shows the marks without links.
    """
    marks = {c.number: _mark(c, turn_id, language, linked) for c in citations}
    if citations and all(c.verbatim for c in citations):
        body = _plain(text, marks)
    else:
        body = _rich(text, marks)
    return _clean(body, _ANSWER_TAGS | {"a", "span"}, _CITE | {"span": {"class"}}, {"data-"})


def reply_html(reply: Reply, language: Language, *, linked: bool = True) -> str:
    """`answer` for a finished reply."""
    return answer(
        reply.text,
        citations=reply.citations,
        turn_id=reply.turn_id,
        language=language,
        linked=linked,
    )


def button(
    action: str,
    label: str,
    *,
    icon: str = "",
    classes: str = "",
    pressed: bool | None = None,
    data: Mapping[str, object] | None = None,
) -> str:
    """A button of ours: `action` and `data` are what the page reports when it is pressed."""
    extra = "".join(f' data-{key}="{escape(value)}"' for key, value in (data or {}).items())
    state = "" if pressed is None else f' aria-pressed="{str(pressed).lower()}"'
    glyph = f'<span class="pl-icon pl-icon-{icon}" aria-hidden="true"></span>' if icon else ""
    return (
        f'<button type="button" class="pl-button {classes}" data-action="{action}"{extra}{state} '
        f'title="{escape(label)}">{glyph}<span class="pl-label">{escape(label)}</span></button>'
    )


def _clean(
    markup: str, tags: set[str], attributes: Mapping[str, set[str]], prefixes: set[str]
) -> str:
    cleaned = nh3.clean(
        markup,
        tags=tags,
        attributes=dict(attributes),
        attribute_filter=_only_anchors,
        url_schemes=set(),
        link_rel=None,
        generic_attribute_prefixes=prefixes,
    )
    return cleaned.replace("\r", "").replace("\n", "&#10;")


def _only_anchors(tag: str, attribute: str, value: str) -> str | None:
    if attribute == "href" and not _ANCHOR.fullmatch(value):
        return None
    return value


def _mark(citation: Citation, turn_id: str, language: Language, linked: bool) -> str:
    number = citation.number
    if not linked:
        return f'<span class="pl-cite">{number}</span>'
    title = say(language, "source_number", n=number, title=citation.title or citation.source)
    return (
        f'<a class="pl-cite" href="#{anchor(turn_id, number)}" data-turn="{escape(turn_id)}" '
        f'data-hint="{escape(title)}">{number}</a>'
    )


def _plain(text: str, marks: Mapping[int, str]) -> str:
    """Quotes as they stand, but for the two marks that grounding adds: fences, and tags in ``."""
    pieces = []
    for i, part in enumerate(_FENCE.split(text)):
        if i % 2:
            pieces.append(f"<pre><code>{escape(part)}</code></pre>")
            continue
        for paragraph in re.split(r"\n\s*\n", part):
            if paragraph.strip():
                words = _marked(paragraph.strip(), marks)
                words = _QUOTED_TAG.sub(r"<code>\1</code>", words).replace("\n", "<br>")
                pieces.append(f"<p>{words}</p>")
    return "".join(pieces)


def _marked(text: str, marks: Mapping[int, str]) -> str:
    """`text` escaped, known marks replaced; an unknown `[7]` stays what it is."""
    pieces: list[str] = []
    position = 0
    for found in _MARK.finditer(text):
        mark = marks.get(int(found[1]))
        if mark is not None:
            pieces += [escape(text[position : found.start()].rstrip(" ")), mark]
            position = found.end()
    return "".join([*pieces, escape(text[position:])])


def _rich(text: str, marks: Mapping[int, str]) -> str:
    tokens = _markdown.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            # an answer sits below the page's own headings
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        if token.children:
            token.children = [
                Token("html_inline", "", 0, content=_marked(child.content, marks))
                if child.type == "text"
                else child
                for child in token.children
            ]
    return str(_markdown.renderer.render(tokens, _markdown.options, {}))

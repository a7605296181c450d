"""Egress control: an output keeps only links and images whose target is a known citation.

Injected text can make a model write an image whose address carries the conversation away; the
browser then fetches it unasked (EchoLeak, CVE-2025-32711, came through reference-style
markdown). So every form is reduced to its text unless its target is on the list.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

_TARGET = r"(?:<[^<>\n]{0,2000}>|[^\s()<>]{0,2000}(?:\([^\s()<>]{0,500}\)[^\s()<>]{0,500}){0,3})"
_TITLE = r"(?:\s{1,4}(?:\"[^\"\n]{0,300}\"|'[^'\n]{0,300}'|\([^()\n]{0,300}\)))?"
_LABEL = r"\[(?P<label>(?:[^\[\]\\]|\\.|\[[^\[\]]{0,100}\]){0,200})\]"
_INLINE = re.compile(rf"!?{_LABEL}\(\s{{0,4}}(?P<target>{_TARGET}){_TITLE}\s{{0,4}}\)")
_DEFINED = re.compile(
    rf"^ {{0,3}}\[(?P<name>[^\[\]\n]{{1,200}})\]:[ \t]*\n?[ \t]*(?P<target>{_TARGET}){_TITLE}"
    r"[ \t]*$",
    re.MULTILINE,
)
_REFERENCE = re.compile(rf"!?{_LABEL}\[(?P<name>[^\[\]\n]{{0,200}})\]")
_AUTOLINK = re.compile(r"<(?P<target>[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]{1,2000})>")
#: What the forms above left standing (labels too long, lists, quotes): parted, it is no link.
_JOINT = re.compile(rf"\](?P<joint>\(|:)(?P<gap>\s{{0,40}})(?P<target>{_TARGET})")
_LOADING = (
    "img|image|iframe|frame|video|audio|source|track|picture|object|embed|applet|link|script|style"
    "|form|input|button|base|meta|use|svg|math|portal|body|table|td|th"
)
_TAG = re.compile(
    r"<(?P<tag>/?[A-Za-z][A-Za-z0-9:-]{0,20})(?P<attributes>(?![A-Za-z0-9:-])[^<>]{0,4000})?(?:>|\Z)"
    rf"|<(?=(?:a|{_LOADING})\b)",
    re.IGNORECASE,
)
_LOADING_TAG = re.compile(rf"(?:{_LOADING})\Z", re.IGNORECASE)
_ATTRIBUTE = re.compile(
    r"(?P<key>[A-Za-z:-]{2,30})\s{0,4}=\s{0,4}"
    r"(?:\"(?P<a>[^\"]{0,4000})\"|'(?P<b>[^']{0,4000})'|(?P<c>[^\s\"'>]{1,4000}))"
)
_LOADS = frozenset(
    [
        *["href", "src", "srcset", "data", "action", "formaction", "poster", "background", "cite"],
        *["longdesc", "ping", "style", "xlink:href", "lowsrc", "dynsrc", "manifest", "codebase"],
    ]
)
_BARE = re.compile(
    r"(?P<target>(?:\b(?:https?|ftps?|wss?|file)://|\bwww\.|\b(?:javascript|vbscript):|\bdata:[a-z]+/)"
    r"[^\s<>\"'`\[\]{}）】」，。、；]{1,2000})",
    re.IGNORECASE,
)
#: Code at the left margin after a blank line: there every renderer agrees that it is code.
_FENCE = re.compile(r"(?:\A|\n[ \t]*\n)(?P<fence>`{3,10}|~{3,10})[^`\n]{0,200}\n")
_RAW_HTML = re.compile(r"<(?:!|\?|/?(?:script|style|pre|textarea)\b)", re.IGNORECASE)
_INLINE_CODE = re.compile(r"(?<![`\\])`[^`\n|]{1,2000}`(?!`)")
_OPENING = re.compile(r"<[A-Za-z/!?]")
#: Nothing to do where none of these stands; most answers end here.
_SUSPECT = re.compile(r"\]\(|\]\[|\]:|<[/a-z]|:/|www\.|data:|javascript:", re.IGNORECASE)
Allowed = Callable[[str], bool]
#: What a link may lead to, what an image may be loaded from, and what a definition may name.
Rules = tuple[Allowed, Allowed, Allowed]


def _listed(urls: frozenset[str]) -> Allowed:
    def allowed(target: str) -> bool:
        plain = html.unescape(target.strip().strip("<>").strip())
        return plain in urls or (plain.startswith("#") and len(plain) < 100)

    return allowed


def _tag(match: re.Match[str], allowed: Allowed) -> str:
    """The tag as it is, or nothing where it or one of its attributes loads from elsewhere."""
    name, attributes = match.group("tag"), match.group("attributes") or ""
    if name is None:
        return "&lt;"
    odd = attributes.count('"') % 2 or attributes.count("'") % 2
    if odd or _LOADING_TAG.match(name.lstrip("/")):
        return ""
    for found in _ATTRIBUTE.finditer(attributes):
        target = found.group("a") or found.group("b") or found.group("c") or ""
        if found.group("key").lower() in _LOADS and not allowed(target):
            return ""
    return match.group()


def _bare(match: re.Match[str], allowed: Allowed) -> str:
    """A bare address keeps standing as its host, in brackets, which no renderer links."""
    target = match.group("target")
    trimmed = target.rstrip(".,;:!?)*_~")
    if allowed(target) or allowed(trimmed):
        return match.group()
    host = re.sub(r"^[A-Za-z]+:/{0,2}(?:[^/@\s]*@)?", "", trimmed)
    host = re.split(r"[/?#\\]", host)[0]
    return f"[{host[:80]}]" + target[len(trimmed) :]


def _raw_html(text: str) -> bool:
    """Whether a comment, script or the like opens here, which may swallow what follows."""
    return bool(_RAW_HTML.search(_INLINE_CODE.sub("", text)))


def _blocks(text: str) -> list[tuple[str, bool]]:
    """The text cut into stretches, True for a fenced code block; joined they give the text."""
    out: list[tuple[str, bool]] = []
    at = 0
    while (opening := _FENCE.search(text, at)) is not None:
        if _raw_html(text[at : opening.start()]):
            break
        fence = opening.group("fence")
        close = re.compile(rf"^ {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$", re.MULTILINE)
        closing = close.search(text, opening.end())
        end = closing.end() if closing else len(text)
        out += [(text[at : opening.start()], False), (text[opening.start() : end], True)]
        at = end
    return [*out, (text[at:], False)]


def neutralise(
    text: str, allowed_urls: frozenset[str], images: frozenset[str] | None = None
) -> tuple[str, bool]:
    """The text with unknown links and images reduced to their text, and whether any was.

    A link is followed by a reader, an image is fetched unasked: `images` are the only addresses
    that images are loaded from; None: those of `allowed_urls`. Covers markdown inline, reference
    and autolink forms, bare addresses and HTML tags. Code is left as it is where every renderer
    agrees that it is code: nothing is fetched from there.
    """
    if not _SUSPECT.search(text):
        return text, False
    allowed = _listed(allowed_urls)
    loads = allowed if images is None else _listed(images & allowed_urls)
    plain = re.sub(r"\r\n?", "\n", text)
    blocks = _blocks(plain)
    names = {
        m.group("name").strip().casefold(): m.group("target")
        for part, code in blocks
        if not code
        for m in _DEFINED.finditer(part)
    }
    # a definition serves links and images alike
    rules = (allowed, loads, loads if "![" in plain else allowed)
    out = "".join(part if code else _prose(part, names, rules) for part, code in blocks)
    # Line ends alone are no reason to touch a text.
    return (out, True) if out != plain else (text, False)


def said_back(text: str) -> str:
    """A user's own words as a reply may repeat them: no link, no image, no control character.

    Who pasted them need not know what is in them, and a page or a terminal would obey it.
    """
    words, _ = neutralise(text, frozenset())
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())


def _prose(text: str, names: dict[str, str], rules: Rules) -> str:
    """Text outside fenced code, paragraph by paragraph."""
    raw = _raw_html(text) or "\ue000" in text
    pieces = re.split(r"(\n[ \t]*\n)", text)
    return "".join(_paragraph(piece, names, rules, raw) for piece in pieces)


def _paragraph(text: str, names: dict[str, str], rules: Rules, raw: bool) -> str:
    """One paragraph; its inline code is left alone where no reading could make it anything else.

    A backtick that is escaped, unpaired, beside another, in a tag or in a table cell may open
    or close no code, and then what looks like code is rendered.
    """
    kept: list[str] = []

    def hold(match: re.Match[str]) -> str:
        kept.append(match.group())
        return f"\ue000{len(kept) - 1}\ue000"

    held = _INLINE_CODE.sub(hold, text)
    if raw or "`" in held or _OPENING.search(held):
        held, kept = text, []
    out = _markdown(held, names, rules)
    allowed = rules[0]
    out = _TAG.sub(lambda m: _tag(m, allowed), out)
    out = _BARE.sub(lambda m: _bare(m, allowed), out)
    return re.sub("\ue000(\\d+)\ue000", lambda m: kept[int(m.group(1))], out) if kept else out


def _label(label: str) -> str:
    """A label's text; a citation mark stays one."""
    return f"[{label}]" if label.isdigit() else label


def _markdown(text: str, names: dict[str, str], rules: Rules) -> str:
    allowed, loads, defines = rules

    def link(match: re.Match[str]) -> str:
        whole, label = match.group(), match.group("label")
        fine = loads if whole.startswith("!") else allowed
        if not fine(match.group("target")):
            return _label(label)
        if "![" not in label:
            return whole
        start = match.start("label") - match.start()  # an image inside a link that may stay
        return whole[:start] + _INLINE.sub(link, label) + whole[start + len(label) :]

    def define(match: re.Match[str]) -> str:
        return match.group() if defines(match.group("target")) else ""

    def reference(match: re.Match[str]) -> str:
        name = (match.group("name") or match.group("label")).strip().casefold()
        fine = loads if match.group().startswith("!") else allowed
        known = name in names and not fine(names[name])
        return _label(match.group("label")) if known else match.group()

    def part(match: re.Match[str]) -> str:
        target = match.group("target")
        harmless = match.group("joint") == ":" and not re.search(r"[/:\\]", target)
        if harmless or allowed(target):
            return match.group()
        return f"] {match.group('joint')}{match.group('gap')}{target}"

    text = _DEFINED.sub(define, text) if "]:" in text else text
    # An image inside a link shows only after the first pass has reduced the image.
    for _ in range(3):
        after = _INLINE.sub(link, text) if "](" in text else text
        after = _REFERENCE.sub(reference, after) if "][" in after and names else after
        if after == text:
            break
        text = after
    text = _JOINT.sub(part, text)
    return _AUTOLINK.sub(lambda m: m.group() if allowed(m.group("target")) else m.group(1), text)

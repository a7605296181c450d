"""What site generators write around Markdown, taken off before Markdown is parsed.

Vue and VitePress, Docusaurus (MDX), Hugo, Jekyll and MkDocs each add their own notation. It is
removed line by line, outside code only, because none of it is text that a reader sees.
"""

from __future__ import annotations

import html
import re

_FENCE = re.compile(
    r"^(?P<lead>[\s>]*(?:(?:[-*+]|\d+[.)])\s+)*)(?P<marks>`{3,}|~{3,})(?P<info>.*)$"
)
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")

_FRONT = re.compile(r"\A(?P<mark>---|\+\+\+)[ \t]*\n(?P<body>.*?\n)?(?P=mark)[ \t]*(?:\n|\Z)", re.S)
_FRONT_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(?P<title>.+?)[ \t]*$", re.M)

#: A line that opens something to be left out, and what closes it.
_LEFT_OUT = (
    (re.compile(r"^\s*<script\b", re.I), re.compile(r"</script\s*>", re.I)),
    (re.compile(r"^\s*<style\b", re.I), re.compile(r"</style\s*>", re.I)),
    (re.compile(r"<!--(?!.*-->)"), re.compile(r"-->")),
    (re.compile(r"\{/\*(?!.*\*/\})"), re.compile(r"\*/\}")),
    (re.compile(r"^\s*\{%-?\s*comment\b"), re.compile(r"\{%-?\s*endcomment\s*-?%\}")),
    (re.compile(r"^\s*<[A-Z][\w.]*(?:\s[^>]*)?$"), re.compile(r">\s*$")),
)
_ONE_LINE_COMMENT = re.compile(r"<!--.*?-->|\{/\*.*?\*/\}")

_MODULE = re.compile(
    r"^(?:import\s+(?:[\w*{][^'\"]*\sfrom\s*)?['\"]|import\s+\{\s*$"
    r"|export\s+(?:const|let|var|default|async|function|class)\b)"
)
_COMPONENT = re.compile(r"<[A-Z][\w.]*(?:\s[^<>]*)?/?>")
_TAG_LINE = re.compile(
    r"^\s*(?:</?(?:[A-Z][\w.]*|div|section|details|center|article|aside|main|figure|template|br)"
    r"(?:\s[^<]*)?/?>\s*)+$"
)
_OPENED = re.compile(r"<(/?)([A-Za-z][\w.]*)[^<>]*?(/?)>")
_JSX_ATTRIBUTE = re.compile(r"(?P<tag><[A-Za-z][^<>{}]*?)\s[\w:@-]+=\{(?:[^{}]|\{[^{}]*\})*\}")
_CONTAINER = re.compile(r"^(?P<indent>[\s>]*):{3,}\s*(?:[\w-]+)?(?P<title>.*)$")
_TAB_MARK = re.compile(r"^[\s>]*@tab(?::active)?\b(?P<label>[^#{\n]*)")
#: What a tab or a card is called stands in an attribute, and a reader sees it.
_LABEL = re.compile(
    r"<(?:[A-Z][\w.]*|div)\b[^<>]*?\slabel=(?P<quote>[\"'])(?P<label>[^\"']+)(?P=quote)"
    r"|<(?:Card|Accordion|Callout|Admonition|Aside|Step|Tab|Expandable|Note|Tip|Warning)\b"
    r"[^<>]*?\stitle=(?P<mark>[\"'])(?P<title>[^\"']+)(?P=mark)"
)
_TERM = re.compile(r"^ {0,3}:[ \t]+(?P<body>\S.*)$")
_NO_TERM = re.compile(r"^\s*(?:[#>|<`~:]|[-*+]\s|\d+[.)]\s|$)")
_ADMONITION = re.compile(
    r"^(?P<indent>\s*)(?:(?:!!!|\?\?\?\+?)\s+[\w -]+?|===\+?(?=\s+\"))"
    r"\s*(?:\"(?P<title>[^\"]*)\")?\s*$"
)
_CONTENTS = re.compile(r"^\s*(?:\[\[?toc\]?\]|\[\[_TOC_\]\]|\{:\s*toc\s*\})\s*$", re.I)

_TEMPLATE_TARGET = re.compile(r"\]\(\s*\{[{%].*?[%}]\}[^)\s]*\s*\)")
_TEMPLATE_REFERENCE = re.compile(r"^(\s{0,3}\[[^\]]+\]:)\s*\{[{%].*$")
_SPACED_TARGET = re.compile(r"\]\((?:#|\.{0,2}/|https?://)[^()<>\"']*\s[^()\"']*\)")
_ESCAPED_LINK = re.compile(r"\\(\[[^\]]{1,200}\]\(\s*\{%)")
_SPLIT_TAG = re.compile(r"\{%[^%{}]{1,300}%\}")
#: One span right after another: the author wrote two wordings, of which a reader picks one.
_EITHER = re.compile(r"</span>(?=<span\b)", re.I)
_ONLY_TAGS = re.compile(r"^\s*(?:\{\{[<%].*?[>%]\}\}\s*|\{%.*?%\}\s*)+$")
_VARIABLE = re.compile(r"\{\{\{\s*\.?([\w.-]+)\s*\}\}\}")
_SHORTCODE = re.compile(r"\{\{[<%]-?\s*(/?[\w/.-]+)(.*?)-?[>%]\}\}")
_LIQUID = re.compile(r"\{%-?\s*([\w-]+)(.*?)-?%\}")
_PLAIN_ARGUMENT = re.compile(r"^\s*[\"']([^\"'/.]+)[\"']\s*$")
_ATTRIBUTES = re.compile(r"[ \t]*(?<!\{)\{:?\s*[.#][A-Za-z_\u00c0-\uffff][^{}]*\}")
#: The extensions of Microsoft's documents.
_INCLUDE = re.compile(r"\[!INCLUDE\s*-?\s*\[(?P<label>[^\]]*)\]\s*\([^)]*\)\s*\]", re.I)
_EXTENSION = re.compile(
    r"\[!(?:div|video|code[\w-]*)\b(?:\[[^\]]*\]\([^)]*\)|[^\]\[]*)\]|\[!\w+\](?!\()", re.I
)
_INLINE_NOTE = re.compile(r"(?<!\\)\^\[(?P<note>[^\]\[\n]*\s[^\]\[\n]*)\]")
_ANY_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_INTERPOLATED = re.compile(r"\{\{\s*'([^']*)'\s*\}\}")
_EDITOR_NOTE = re.compile(r"[ \t]*(?://|#|<!--|/\*)\s*\[!code[^\]]*\].*$")
_HIGHLIGHT = re.compile(r"^\s*(?://|#|<!--|/\*|\{/\*)\s*highlight-(?:next-line|start|end)\b.*$")


def front_matter(source: str) -> tuple[str, str]:
    """Return the title that YAML or TOML front matter gives ("" without one), and the rest."""
    found = _FRONT.match(source)
    if not found:
        return "", source
    title = _FRONT_TITLE.search(found.group("body") or "")
    text = title.group("title") if title else ""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        quote = text[0]
        text = text[1:-1].replace("\\" + quote, quote).replace("''", "'")
    text = html.unescape(_ANY_TAG.sub("", _VARIABLE.sub(r"\1", text)))
    return ("" if text in ("|", ">", "|-", ">-") else text), source[found.end() :]


def is_mdx(source: str) -> bool:
    """Whether components are used, so that indentation is layout and not code."""
    return any(_COMPONENT.match(line.lstrip()) for line in source.split("\n"))


def clean(source: str) -> str:
    """`source` without its generator's notation; code is left as it is."""
    source = _ESCAPED_LINK.sub(r"\1", source)
    source = _SPLIT_TAG.sub(lambda tag: tag.group().replace("\n", " "), source)
    return "\n".join(_Cleaner().run(source.split("\n")))


def _title_of(rest: str) -> str:
    """Return the caption of a container: what its author wrote, not an attribute."""
    rest = re.sub(r"\{[^}]*\}", "", rest).strip()
    return rest[1:-1] if rest.startswith("[") and rest.endswith("]") else rest


def _shortcode(found: re.Match[str]) -> str:
    """Keep what a reader sees of a template tag: its argument if that is plain words."""
    argument = _PLAIN_ARGUMENT.match(found.group(2))
    return argument.group(1) if argument else ""


def _included(line: str, found: re.Match[str]) -> str:
    """Read an include inside a sentence as its label; the file it names is not opened."""
    alone = not line.replace(found.group(), "").strip(" >")
    return "" if alone else found.group("label").replace("_", " ")


def _prose(line: str, alone: bool = False) -> str:
    """One line outside code without template tags and attribute lists."""
    line = _ONE_LINE_COMMENT.sub("", line)
    line = _INCLUDE.sub(lambda found: _included(line, found), line)
    line = _EXTENSION.sub("", line)
    line = _INLINE_NOTE.sub(r" (\g<note>)", line)
    line = _TEMPLATE_TARGET.sub("](#)", line)
    line = _TEMPLATE_REFERENCE.sub(r"\1 #", line)
    line = _SPACED_TARGET.sub("](#)", line)
    line = _EITHER.sub("</span> / ", line)
    line = _VARIABLE.sub(r"\1", line)
    line = _SHORTCODE.sub("" if alone else _shortcode, line)
    line = _LIQUID.sub("" if alone else _shortcode, line)
    for _ in range(8):
        line, count = _JSX_ATTRIBUTE.subn(r"\g<tag>", line)
        if not count:
            break
    return _ATTRIBUTES.sub("", line)


def _outside_code(line: str) -> str:
    """`_prose` applied to what is not between backticks."""
    result, end = [], 0
    for span in _CODE_SPAN.finditer(line):
        result += [_prose(line[end : span.start()]), span.group()]
        end = span.end()
    if not result:
        return _prose(line)
    return "".join([*result, _prose(line[end:])])


class _Cleaner:
    """Walks the lines once, knowing whether it stands in code, in a module or in a left-out."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._fence = ""
        self._interpolated = False
        self._tags: list[int] = []
        self._closer: re.Pattern[str] | None = None
        self._module = False
        self._shift: list[int] = []

    def run(self, lines: list[str]) -> list[str]:
        for line in lines:
            self._line(self._out_of_tags(self._dedent(line)))
        return self._out

    def _dedent(self, line: str) -> str:
        """Undo the indentation of what stands inside an admonition."""
        if not line.strip():
            return line
        indent = len(line) - len(line.lstrip(" "))
        while self._shift and indent < self._shift[-1]:
            self._shift.pop()
        return line[4 * len(self._shift) :] if self._shift else line

    def _out_of_tags(self, line: str) -> str:
        """Undo the indentation of what stands inside layout tags: it is not code."""
        if not self._tags or not line.strip():
            return line
        shift = self._tags[-1] - self._tags[0]
        return line[min(shift, len(line) - len(line.lstrip(" "))) :]

    def _enter(self, line: str) -> None:
        """Keep count of the layout tags that a line opens and closes."""
        indent = (
            len(line)
            - len(line.lstrip(" "))
            + (self._tags[-1] - self._tags[0] if self._tags else 0)
        )
        for tag in _OPENED.finditer(line):
            if tag.group(1):
                self._tags[-1:] = []
            elif not tag.group(3) and tag.group(2).lower() != "br":
                self._tags.append(indent)

    def _line(self, line: str) -> None:
        if self._fence:
            self._in_fence(line)
        elif self._closer:
            self._skip(line)
        elif self._module:
            self._module = bool(line.strip())
            self._out += [] if self._module else [""]
        elif (fence := _FENCE.match(line)) and "`" not in fence.group("info"):
            self._fence = fence.group("marks")
            self._interpolated = "-vue" in fence.group("info")
            self._out.append(line)
        elif self._is_module(line):
            self._module = True
        elif not self._opens_left_out(line):
            self._structure(line)

    def _in_fence(self, line: str) -> None:
        mark = line.lstrip(" \t>").rstrip()
        if mark.startswith(self._fence) and not mark.strip(self._fence[0]):
            self._fence = ""
        elif _HIGHLIGHT.match(line):
            return
        if self._interpolated:
            line = _INTERPOLATED.sub(r"\1", line)
        self._out.append(_EDITOR_NOTE.sub("", line))

    def _skip(self, line: str) -> None:
        if self._closer and (found := self._closer.search(line)):
            self._closer = None
            rest = line[found.end() :]
            self._out.append(_outside_code(rest) if rest.strip() else "")

    def _is_module(self, line: str) -> bool:
        return bool(_MODULE.match(line)) and not (self._out and self._out[-1].strip())

    def _opens_left_out(self, line: str) -> bool:
        bare = _CODE_SPAN.sub(lambda span: "x" * len(span.group()), line)
        for opener, closer in _LEFT_OUT:
            found = opener.search(bare)
            if found:
                if not closer.search(bare, found.end()):
                    self._closer = closer
                before = line[: found.start()]
                self._out.append(_outside_code(before) if before.strip() else "")
                return True
        return False

    def _structure(self, line: str) -> None:
        if container := _CONTAINER.match(line):
            title = _title_of(container.group("title"))
            self._out += ["", container.group("indent") + title, ""] if title else [""]
        elif admonition := _ADMONITION.match(line):
            indent = admonition.group("indent")
            self._shift.append(len(indent) + 4 * (1 + len(self._shift)))
            self._out += ["", indent + (admonition.group("title") or ""), ""]
        elif _TAG_LINE.match(line):
            self._enter(line)
            for label in _LABEL.finditer(line):
                name = label.group("label") or label.group("title")
                self._out += ["", _prose(html.unescape(name))]
            self._out.append("")
        elif tab := _TAB_MARK.match(line):
            self._out += ["", tab.group("label").strip(), ""]
        elif _CONTENTS.match(line):
            self._out.append("")
        elif (term := _TERM.match(line)) and self._out and not _NO_TERM.match(self._out[-1]):
            self._define(self._out.pop().strip(), term.group("body"))
        else:
            between = not (self._out and self._out[-1].strip())
            alone = between and bool(_ONLY_TAGS.match(line))
            cleaned = _prose(line, alone) if alone else _outside_code(line)
            self._out.append(cleaned if cleaned.strip() else "")

    def _define(self, term: str, body: str) -> None:
        """Write an entry of a definition list as one item: the term, then what it means."""
        colon = "：" if "\u4e00" <= term[-1] <= "\u9fff" else ": "
        self._out += ["", f"- {term}{colon}{_outside_code(body)}"]

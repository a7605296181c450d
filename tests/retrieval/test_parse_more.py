from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bench import parsing
from retrieval.config import ParseSettings
from retrieval.errors import ParseError
from retrieval.menu import load
from retrieval.parse.worker import ParserPool
from retrieval.schema import Parsed

SETTINGS = ParseSettings()


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    """Limited workers, as ingestion uses them."""
    with ParserPool(ParseSettings(max_characters=50_000)) as pool:
        yield pool


def read(name: str, path: Path) -> Parsed:
    """Parse with the parser called `name`."""
    parsed: Parsed = load("retrieval.parse", name).parse(path, SETTINGS)
    return parsed


def kinds(parsed: Parsed) -> list[tuple[str, str]]:
    """Return every heading and block as (kind, text), in order."""
    found = [(h.start, f"h{h.level}", h.text) for h in parsed.headings]
    found += [(b.start, b.kind, parsed.text[b.start : b.end]) for b in parsed.blocks]
    return [(kind, text) for _, kind, text in sorted(found)]


def written(path: Path, content: str) -> Path:
    """Write a text file."""
    path.write_text(content, encoding="utf-8")
    return path


def test_a_notebook_keeps_prose_code_and_results(tmp_path: Path) -> None:
    """Markdown cells are prose, code and what it printed are code, tracebacks are left out."""
    result = {"output_type": "execute_result", "data": {"text/plain": ["2"], "image/png": "xx"}}
    cells = [
        {"cell_type": "markdown", "source": ["# 分析\n", "\n", "| a | b |\n|---|---|\n| 1 | 2 |"]},
        {
            "cell_type": "code",
            "source": "print('hi')\n1 + 1",
            "outputs": [
                {"output_type": "stream", "text": ["hi\n"]},
                result,
                {"output_type": "error", "traceback": ["secret"]},
            ],
        },
    ]
    parsed = read("notebook", written(tmp_path / "a.ipynb", json.dumps({"cells": cells})))
    assert kinds(parsed) == [
        ("h1", "分析"),
        ("table_row", "a: 1; b: 2"),
        ("code", "print('hi')\n1 + 1"),
        ("code", "hi"),
        ("code", "2"),
    ]


def test_a_message_names_its_people_and_its_attachments(tmp_path: Path) -> None:
    """Headers are one row, the body is text without its signature, quotes are quotes."""
    message = EmailMessage()
    message["From"] = "Ann <ann@example.org>"
    message["To"] = "李雷 <lilei@example.org>"
    message["Subject"] = "季度报告 Q1"
    message.set_content(
        "你好，报告在附件里。\n\n> Where is it?\n> Please send.\n\n-- \nAnn", charset="gbk"
    )
    message.add_attachment(b"x", maintype="application", subtype="pdf", filename="报告.pdf")
    (tmp_path / "a.eml").write_bytes(bytes(message))
    parsed = read("mail", tmp_path / "a.eml")
    assert parsed.title == "季度报告 Q1"
    assert kinds(parsed) == [
        ("h1", "季度报告 Q1"),
        ("table_row", "From: Ann <ann@example.org>; To: 李雷 <lilei@example.org>"),
        ("paragraph", "你好，报告在附件里。"),
        ("quote", "Where is it?\nPlease send."),
        ("list_item", "报告.pdf"),
    ]
    assert "报告.pdf was not read" in parsed.notes[0]


def book(path: Path, chapters: dict[str, str], extra: dict[str, str] | None = None) -> Path:
    """Write an EPUB of these chapters."""
    items = "".join(f'<item id="{n}" href="text/{n}.xhtml"/>' for n in chapters)
    spine = "".join(f'<itemref idref="{n}"/>' for n in reversed(chapters))
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container><rootfiles><rootfile full-path="OPS/b.opf"/>'
        "</rootfiles></container>",
        "OPS/b.opf": "<package><metadata><title>一本书</title></metadata>"
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>",
        **{f"OPS/text/{n}.xhtml": text for n, text in chapters.items()},
        **(extra or {}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return path


PAGE = (
    '<?xml version="1.0"?><!DOCTYPE html><html><head><title>x</title></head><body>{}</body></html>'
)


def test_a_book_is_read_in_the_order_of_its_spine(pool: ParserPool, tmp_path: Path) -> None:
    """Chapters come in reading order, not in that of the archive, through the limited worker."""
    pages = {
        "two": PAGE.format("<h1>第二章</h1><p>B.</p>"),
        "one": PAGE.format("<h1>One</h1><p>A.</p>"),
    }
    parsed = pool.parse(book(tmp_path / "a.epub", pages))
    assert parsed.title == "一本书"
    assert kinds(parsed) == [
        ("h1", "One"),
        ("paragraph", "A."),
        ("h1", "第二章"),
        ("paragraph", "B."),
    ]


def test_a_locked_book_is_named(tmp_path: Path) -> None:
    """A book whose chapters are encrypted asks for its lock to be removed."""
    lock = {"META-INF/encryption.xml": '<x><CipherReference URI="OPS/text/one.xhtml"/></x>'}
    with pytest.raises(ParseError) as caught:
        read("book", book(tmp_path / "a.epub", {"one": PAGE.format("x")}, lock))
    assert caught.value.reason == "encrypted"


YAML = """# The server.
server:
  # seconds before a request is given up
  timeout: 30
  hosts: [a.example, b.example]  # two
  rules:
    - name: 甲
      allow: yes
script: |
  line one
  line two
"""


def test_settings_keep_their_full_names_and_their_comments(tmp_path: Path) -> None:
    """A value stands beside its whole path and what the comment above or behind it says."""
    assert kinds(read("settings", written(tmp_path / "a.yaml", YAML))) == [
        ("h1", "server"),
        ("paragraph", "The server."),
        ("table_row", "server.timeout: 30; seconds before a request is given up"),
        ("table_row", "server.hosts: a.example, b.example"),
        ("table_row", "server.rules[0].name: 甲"),
        ("table_row", "server.rules[0].allow: yes"),
        ("paragraph", "script:"),
        ("code", "line one\nline two"),
    ]
    toml = '# 版本\nversion = "1"\n[tool.x]\nfiles = [\n  "a",\n  "b",\n]  # 两个\n'
    assert kinds(read("settings", written(tmp_path / "a.toml", toml))) == [
        ("table_row", 'version: "1"; 版本'),
        ("h1", "tool.x"),
        ("table_row", 'tool.x.files: [ "a", "b", ]; 两个'),
    ]


def test_a_template_of_settings_is_kept_as_it_stands(tmp_path: Path) -> None:
    """What is not YAML is kept as plain lines, and the note names the line."""
    parsed = read("settings", written(tmp_path / "a.yml", "a: 1\nb: {{ .Values.x }}\n"))
    assert kinds(parsed) == [("code", "a: 1\nb: {{ .Values.x }}")]
    assert parsed.notes[0].startswith("not YAML at line 2")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.yaml", "a: &a [x, x, x]\n" + "".join(f"b{i}: [*a, *a]\n" for i in range(9))),
        ("a.yaml", "&a [*a, *a]"),
        ("a.yaml", "[" * 1_500),
        ("a.ipynb", '{"cells": [{"cell_type": "markdown", "source": ["x", 1, null]}, 5]}'),
        ("a.toml", "x = [" * 3_000),
    ],
)
def test_hostile_files_end(pool: ParserPool, tmp_path: Path, file: str, content: str) -> None:
    """Aliases of themselves, deep nesting and odd types are read or refused, never hang."""
    try:
        outcome = pool.parse(written(tmp_path / file, content)).text
    except ParseError as error:
        outcome = error.reason
    assert outcome not in ("", "timeout", "memory")


def test_a_notebook_without_cells_is_broken(tmp_path: Path) -> None:
    """Other JSON under the suffix of a notebook is named."""
    with pytest.raises(ParseError) as caught:
        read("notebook", written(tmp_path / "a.ipynb", "[1]"))
    assert caught.value.reason == "broken"


PIECES = st.lists(
    st.sampled_from(
        [
            *(
                "# 标题 {#id}",
                "Word *em* **中文**字",
                "| a | b |",
                "|---|---|",
                "| 1 | 二 |",
                "- item",
            ),
            *(
                "1. one:",
                "> [!NOTE]",
                "> quote",
                "```js",
                "```",
                "::: tip x",
                ":::",
                "<div>",
                "</div>",
            ),
            *("[^1] ref", "[^1]: note", ": def", "<table><tr><td rowspan=9>x", "</table>", "</tr>"),
            *(
                "<dl><dt>t<dd>d</dl>",
                "<ul><li>a<ul><li>b",
                "</ul>",
                "<!-- c",
                "-->",
                "{{< x >}}",
                "",
            ),
            *(
                "    code",
                "===",
                ".. note:: n",
                "   body",
                "+--+--+",
                "|a |b |",
                "a\n==",
                "term\n  def",
            ),
            *(
                "<p>p<a href='#fn1'>1</a>",
                "<li id='fn1'>note</li>",
                "\u200b",
                "![alt](x)",
                "<br>",
                "\t",
            ),
            *(
                "a: 1",
                "b:",
                "  - c  # said",
                "[s]",
                "k = [",
                "]",
                "From: a@b",
                "> x",
                "-- ",
                "sep=;",
            ),
        ]
    ),
    max_size=14,
)
TEXT_PARSERS = (
    *(("markdown", ".md"), ("web", ".html"), ("rst", ".rst"), ("text", ".txt"), ("table", ".csv")),
    *(("settings", ".yaml"), ("settings", ".toml"), ("mail", ".eml")),
)


@pytest.mark.parametrize(("name", "suffix"), TEXT_PARSERS)
def test_every_parser_keeps_the_promises_of_parsed(
    tmp_path_factory: pytest.TempPathFactory, name: str, suffix: str
) -> None:
    """Whatever is put together: blocks are sorted and disjoint, cover all text, and chunks too."""
    path = tmp_path_factory.mktemp("any") / f"a{suffix}"

    @settings(max_examples=60, deadline=None)
    @given(PIECES, st.sampled_from(["\n", "\n\n"]))
    def law(pieces: list[str], between: str) -> None:
        path.write_text(between.join(pieces), encoding="utf-8")
        try:
            parsed = read(name, path)
        except ParseError as error:
            assume(error.reason in ("empty", "broken"))
            return
        assert parsing.sound(parsed)

    law()


def test_the_measure_sees_what_it_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """bench.parsing ends with one JSON line, counts whole rows, and finds planted markup."""
    written(tmp_path / "a.md", "# 标题\n\nText of words.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    written(tmp_path / "b.md", "It says \\*\\*bold\\*\\* here.\n")
    parsing.main(["--data", str(tmp_path)])
    values = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert (values["files"], values["failed"], values["broken"]) == (2, 0, 0)
    assert (values["headings"], values["rows_with_columns"], values["word_recall"]) == (1, 1, 1)
    assert values["leaks_by_kind"] == {"emphasis": 2}

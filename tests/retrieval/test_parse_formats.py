from __future__ import annotations

import datetime
import json
import zipfile
from pathlib import Path

import openpyxl
import pptx
import pytest

from retrieval.config import ParseSettings
from retrieval.errors import ParseError
from retrieval.menu import load
from retrieval.schema import Parsed

SETTINGS = ParseSettings()


def read(name: str, path: Path) -> Parsed:
    """Parse with the parser called `name`."""
    parsed: Parsed = load("retrieval.parse", name).parse(path, SETTINGS)
    return parsed


def kinds(parsed: Parsed) -> list[tuple[str, str]]:
    """Return every heading and block as (kind, text), in order."""
    found = [(h.start, f"h{h.level}", h.text) for h in parsed.headings]
    found += [(b.start, b.kind, parsed.text[b.start : b.end]) for b in parsed.blocks]
    return [(kind, text) for _, kind, text in sorted(found)]


def written(folder: Path, name: str, content: str, encoding: str = "utf-8") -> Path:
    """Write a text file."""
    path = folder / name
    path.write_bytes(content.encode(encoding))
    return path


PAGE = """<!doctype html><html><head><meta charset="{charset}"><title>标题 &amp; more</title>
<style>.x{{}}</style></head><body><nav>Home</nav><header>Site name</header>
<main><header><h1>主标题<a class="headerlink" href="#">¶</a></h1></header>
<p>第一行
第二行 <b>粗</b>体&nbsp;x<br>换行</p><p style="display: none">secret</p><div hidden>secret</div>
<ul><li>甲<ul><li>乙</li></ul></li></ul><ol start="3"><li>three</li></ol>
<table><tr><th>名</th><th>值</th></tr><tr><td>一<br>二</td><td><p>a</p><p>b</p></td></tr></table>
<pre>x = 1
  y</pre><blockquote>引用</blockquote><!-- secret --><script>secret()</script>
<p>Cited<sup><a href="#cite_note-1">[1]</a></sup>.</p></main>
<footer>secret</footer></body></html>"""


FURNITURE = """<html><body><div class="cookie-banner">We use cookies</div>
<div class="site-header">Site</div><ul class="pagination"><li>2</li></ul>
<article><h1>Tea</h1><p>Green tea<a href="#fn1"><sup>1</sup></a> is steeped.</p><p>Hot.</p>
<dl><dt>煎茶</dt><dd>日本绿茶。</dd><dt>Matcha</dt><dt>抹茶</dt><dd>Ground tea.</dd>
<dt>Brewing</dt><dd><ul><li>boil</li></ul></dd></dl>
<figure><img alt="A pot"><figcaption>Figure 1: a pot</figcaption></figure>
<p>About <span id="cookies">cookies with tea</span>.</p>
<ol><li id="fn1">Camellia sinensis. <a href="#fnref1">↩</a></li></ol></article></body></html>"""


def test_html_keeps_definitions_captions_and_notes(tmp_path: Path) -> None:
    """A definition has its term, a note follows its sentence, banners and pagers are no text."""
    assert kinds(read("web", written(tmp_path, "a.html", FURNITURE))) == [
        ("h1", "Tea"),
        ("paragraph", "Green tea is steeped."),
        ("paragraph", "Camellia sinensis."),
        ("paragraph", "Hot."),
        ("list_item", "煎茶：日本绿茶。"),
        ("list_item", "Matcha / 抹茶：Ground tea."),
        ("paragraph", "Brewing"),
        ("list_item", "boil"),
        ("paragraph", "A pot"),
        ("paragraph", "Figure 1: a pot"),
        ("paragraph", "About cookies with tea."),
    ]


MERGED = """<table><thead><tr><th rowspan="2">City</th><th colspan="2">2024</th></tr>
<tr><th>Q1</th><th>Q2</th></tr></thead><tbody>
<tr><td rowspan="2">北京</td><td>1</td><td>2</td></tr><tr><td colspan="2">n/a</td></tr>
<tr><th colspan="3">Totals</th></tr><tr><th>all</th><td>3</td><td>4</td></tr></tbody></table>"""


def test_merged_cells_are_said_where_they_hold(tmp_path: Path) -> None:
    """A row names its columns by all their headers and repeats what hangs down from above."""
    assert [text for _, text in kinds(read("web", written(tmp_path, "a.html", MERGED)))] == [
        "City: 北京; 2024 Q1: 1; 2024 Q2: 2",
        "City: 北京; 2024 Q1: n/a",
        "Totals",
        "City: all; 2024 Q1: 3; 2024 Q2: 4",
    ]


def test_a_table_that_lies_about_its_size_is_read(tmp_path: Path) -> None:
    """Spans of millions of cells cost nothing and lose nothing."""
    cell = '<td colspan="99999999" rowspan="99999999">x</td>'
    page = f"<table><tr>{cell * 300}</tr><tr><td>y</td></tr></table>"
    assert "y" in read("web", written(tmp_path, "a.html", page)).text


@pytest.mark.parametrize("charset", ["utf-8", "gb18030", "big5", "utf-16"])
def test_html_is_read_as_its_reader_sees_it(tmp_path: Path, charset: str) -> None:
    """The article's text and structure, without the page around it, in any encoding."""
    text = PAGE.format(charset=charset)
    if charset == "big5":
        simplified, traditional = "标题体换¶", "標題體換#"
        text = text.translate(str.maketrans(simplified, traditional)).replace("&nbsp;", " ")
    parsed = read("web", written(tmp_path, "a.html", text, charset))
    assert "secret" not in parsed.text
    assert [kind for kind, _ in kinds(parsed)] == [
        *("h1", "paragraph", "list_item", "list_item", "list_item", "table_row"),
        *("code", "quote", "paragraph"),
    ]
    texts = [text for _, text in kinds(parsed)]
    assert texts[1].startswith("第一行第二行 粗")
    assert texts[1].endswith("行")
    assert texts[2:6] == ["甲", "乙", "3. three", "名：一二；值：a b"]
    assert texts[6:] == ["x = 1\n  y", "引用", "Cited."]


def test_html_entities_and_outside_files_are_harmless(tmp_path: Path) -> None:
    """A document type's entities are neither expanded nor fetched."""
    laughs = "".join(
        f'<!ENTITY a{i} "{"&a" + str(i - 1) + ";" if i else "ha"}{"&a0;" * 10}">' for i in range(12)
    )
    source = (
        f'<!DOCTYPE html [{laughs}<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        "<html><body><p>kept &a11; &x;</p></body></html>"
    )
    parsed = read("web", written(tmp_path, "a.xhtml", source))
    assert "kept" in parsed.text
    assert "root:" not in parsed.text
    assert len(parsed.text) < 5000


def test_a_layout_table_is_read_as_blocks(tmp_path: Path) -> None:
    """A table that only places headings on a page is not a data table."""
    page = "<table><tr><td><h2>甲</h2><p>one</p></td><td><p>two</p></td></tr></table>"
    assert kinds(read("web", written(tmp_path, "a.htm", page))) == [
        ("h2", "甲"),
        ("paragraph", "one"),
        ("paragraph", "two"),
    ]


def test_plain_text_has_paragraphs_and_a_log_has_lines(tmp_path: Path) -> None:
    """Blank lines cut plain text; every line of a log is its own."""
    parsed = read("text", written(tmp_path, "a.txt", "第一段\n\n- point\n- 点\n\nlast", "gb18030"))
    assert kinds(parsed) == [
        ("paragraph", "第一段"),
        ("list_item", "- point"),
        ("list_item", "- 点"),
        ("paragraph", "last"),
    ]
    log = read("text", written(tmp_path, "a.log", "10:00 start\n10:01 失败\n"))
    assert kinds(log) == [("paragraph", "10:00 start"), ("paragraph", "10:01 失败")]


RST = """
标题
====

第一行 :ref:`the thing <label>`
第二行，:class:`~a.b.Client` and ``code``.

.. toctree::
   :maxdepth: 2

   secret

.. note:: Be careful.

.. py:function:: foo(x)
   :noindex:

   Does foo.

.. code-block:: python
   :linenos:

   def f():
       return 1

.. include:: /etc/passwd
.. raw:: html

   <b>secret</b>

Part
----

1. one

   - nested

+---+----+
| A | B  |
+===+====+
| 1 | 甲 |
|   | 乙 |
+---+----+
"""


def test_restructured_text_is_read_without_sphinx(tmp_path: Path) -> None:
    """Roles and directives of Sphinx are text, includes and raw passages are nothing."""
    parsed = read("rst", written(tmp_path, "a.rst", RST))
    assert kinds(parsed) == [
        ("h1", "标题"),
        ("paragraph", "第一行 the thing 第二行，Client and code."),
        ("paragraph", "Be careful."),
        ("paragraph", "foo(x)"),
        ("paragraph", "Does foo."),
        ("code", "def f():\n    return 1"),
        ("h2", "Part"),
        ("list_item", "1. one"),
        ("list_item", "nested"),
        ("table_row", "A: 1; B: 甲乙"),
    ]


RST_NOTES = """
Tea [#n]_ is hot [CIT]_.

.. [#n] A note.
.. [CIT] A source.

煎茶
    日本绿茶。

Term
    One.

    Two.

.. list-table:: 表格
   :header-rows: 1

   * - 名
     - 值
   * - 甲
     - 1
"""


def test_restructured_text_keeps_notes_and_terms_together(tmp_path: Path) -> None:
    """A footnote follows its sentence, a definition its term, a row its columns."""
    assert kinds(read("rst", written(tmp_path, "a.rst", RST_NOTES))) == [
        ("paragraph", "Tea is hot ."),
        ("paragraph", "A note."),
        ("paragraph", "A source."),
        ("list_item", "煎茶：日本绿茶。"),
        ("paragraph", "Term"),
        ("paragraph", "One."),
        ("paragraph", "Two."),
        ("paragraph", "表格"),
        ("table_row", "名：甲；值：1"),
    ]


def test_a_table_row_stands_on_its_own(tmp_path: Path) -> None:
    """Each row of a CSV names its columns; without a header its cells stay cells."""
    parsed = read(
        "table", written(tmp_path, "a.csv", '姓名,部门,备注\n张三,财务,"多\n行"\n李四,,x\n')
    )
    assert kinds(parsed) == [
        ("table_row", "姓名：张三；部门：财务；备注：多行"),
        ("table_row", "姓名：李四；备注：x"),
    ]
    assert kinds(read("table", written(tmp_path, "b.csv", "name;age\nAnn;3\nBob;4")))[0] == (
        "table_row",
        "name: Ann; age: 3",
    )
    assert kinds(read("table", written(tmp_path, "c.tsv", "1\t2\n3\t4"))) == [
        ("table_row", "1 | 2"),
        ("table_row", "3 | 4"),
    ]


def test_json_is_read_as_named_values(tmp_path: Path) -> None:
    """Records are lines, sections have headings, numbers stay as written, prose is prose."""
    value = {
        "title": "T",
        "price": 1.10,
        "tags": ["a"],
        "people": [{"n": "x", "o": None}, {"n": "y"}],
    }
    text = json.dumps(value).replace("1.1", "1.10") + "\n"
    parsed = read("data", written(tmp_path, "a.json", text))
    assert kinds(parsed) == [
        ("table_row", "title: T"),
        ("table_row", "price: 1.10"),
        ("h1", "tags"),
        ("list_item", "a"),
        ("h1", "people"),
        ("table_row", "n: x"),
        ("table_row", "n: y"),
    ]
    assert parsed.title == "T"
    lines = json.dumps({"问": "甲", "deep": {"a": [True]}}, ensure_ascii=False)
    prose = json.dumps({"text": "one\n\ntwo"})
    parsed = read("data", written(tmp_path, "a.jsonl", f"{lines}\n\n{prose}"))
    assert kinds(parsed) == [
        ("table_row", "问：甲；deep.a：true"),
        ("paragraph", "one"),
        ("paragraph", "two"),
    ]


def test_a_slide_deck_keeps_points_tables_and_notes(tmp_path: Path) -> None:
    """Slide titles are headings; text that looks like markup is text."""
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    assert slide.shapes.title is not None
    slide.shapes.title.text = "季度 review"
    slide.placeholders[1].text_frame.text = "point *one*\n# 第二点"
    cells = slide.shapes.add_table(1, 2, 0, 9_000_000, 999, 999).table
    cells.cell(0, 0).text, cells.cell(0, 1).text = "a\nb", "甲"
    notes = slide.notes_slide.notes_text_frame
    assert notes is not None
    notes.text = "note"
    deck.save(str(tmp_path / "a.pptx"))
    assert kinds(read("office", tmp_path / "a.pptx")) == [
        ("h1", "季度 review"),
        ("list_item", "point *one*"),
        ("list_item", "# 第二点"),
        ("table_row", "a b | 甲"),
        ("paragraph", "note"),
    ]


def test_a_workbook_keeps_every_visible_cell(tmp_path: Path) -> None:
    """Each row names its columns; empty cells are not NaN, whole numbers and dates are plain."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "员工"
    sheet.append(["姓名", "年龄", None, "入职"])
    sheet.append(["张三", 30.0, None, datetime.datetime(2024, 1, 2)])
    sheet.append(["Li\nSi", None, 3.5, "a|b <c>"])
    hidden = book.create_sheet("hidden")
    hidden.append(["secret"])
    hidden.sheet_state = "hidden"
    book.save(tmp_path / "a.xlsx")
    assert kinds(read("office", tmp_path / "a.xlsx")) == [
        ("h1", "员工"),
        ("table_row", "姓名：张三；年龄：30；入职：2024-01-02"),
        ("table_row", "姓名：Li Si；3.5；入职：a|b <c>"),
    ]


def test_a_workbook_is_read_as_it_is_shown(tmp_path: Path) -> None:
    """Titles stand above their table, per cents are per cents, unsaved formulas are named."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Sales"
    sheet.append(["Sales of 2024"])
    sheet.append(["region", "share", "sum"])
    sheet.append(["north", 0.155, "=1+1"])
    sheet["B3"].number_format = "0.0%"
    book.create_sheet("第二张").append(["only", "cells"])
    book.save(tmp_path / "a.xlsx")
    parsed = read("office", tmp_path / "a.xlsx")
    assert kinds(parsed) == [
        ("h1", "Sales"),
        ("paragraph", "Sales of 2024"),
        ("table_row", "region: north; share: 15.5%"),
        ("h1", "第二张"),
        ("table_row", "only | cells"),
    ]
    assert parsed.notes[0].startswith("1 formulas have no saved value")


def test_slides_are_read_from_left_to_right_and_tables_by_their_columns(tmp_path: Path) -> None:
    """Boxes that are level are read across, merged cells hold for all, hidden slides are not."""
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    for left, top, text in ((5_000_000, 990_000, "right"), (100_000, 1_000_000, "left")):
        slide.shapes.add_textbox(left, top, 900_000, 300_000).text_frame.text = text
    table = slide.shapes.add_table(3, 2, 0, 3_000_000, 999, 999).table
    for row, texts in enumerate([("城市", "人口"), ("北京", "1"), ("", "2")]):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    hidden = deck.slides.add_slide(deck.slide_layouts[6])
    hidden.shapes.add_textbox(0, 0, 999, 999).text_frame.text = "secret"
    hidden._element.set("show", "0")
    deck.save(str(tmp_path / "a.pptx"))
    assert [text for _, text in kinds(read("office", tmp_path / "a.pptx"))] == [
        "left",
        "right",
        "城市：北京；人口：1",
        "城市：北京；人口：2",
    ]


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def test_word_keeps_footnotes_and_merged_cells(tmp_path: Path) -> None:
    """A footnote follows its sentence, headers of pages are no text, merged cells are repeated."""

    def run(text: str) -> str:
        return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"

    def cell(text: str, properties: str = "") -> str:
        return f"<w:tc><w:tcPr>{properties}</w:tcPr>{run(text)}</w:tc>"

    body = (
        '<w:p><w:r><w:t>茶树喜阴。</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
        + run("Next.")
        + "<w:tbl><w:tr><w:trPr><w:tblHeader/></w:trPr>"
        + cell("City")
        + cell("Year")
        + "</w:tr><w:tr>"
        + cell("Oslo", '<w:vMerge w:val="restart"/>')
        + cell("1")
        + "</w:tr><w:tr>"
        + cell("", "<w:vMerge/>")
        + cell("2")
        + "</w:tr></w:tbl>"
    )
    relations = "".join(
        f'<Relationship Id="{name}" Type="{OFFICE}/{name}s" Target="{name}s.xml"/>'
        for name in ("footnote",)
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
        '<Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r" '
        f'Type="{OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">'
        f"{relations}</Relationships>",
        "word/document.xml": f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>',
        "word/footnotes.xml": f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:id="2">'
        f"{run('Camellia sinensis.')}</w:footnote></w:footnotes>",
    }
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    assert kinds(read("office", tmp_path / "a.docx")) == [
        ("paragraph", "茶树喜阴。"),
        ("paragraph", "Camellia sinensis."),
        ("paragraph", "Next."),
        ("table_row", "City: Oslo; Year: 1"),
        ("table_row", "City: Oslo; Year: 2"),
    ]


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("data", "a.json", '{"a": '),
        ("data", "a.json", "[" * 100_000),
        ("data", "a.jsonl", '{"a": 1}\nnot json'),
    ],
)
def test_broken_data_is_named(tmp_path: Path, name: str, file: str, content: str) -> None:
    """Data that does not parse is broken, and the message says where."""
    with pytest.raises(ParseError) as caught:
        read(name, written(tmp_path, file, content))
    assert caught.value.reason == "broken"

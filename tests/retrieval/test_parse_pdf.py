from __future__ import annotations

from pathlib import Path

import pypdfium2
import pytest
from PIL import Image, ImageDraw, ImageFont

from retrieval.config import ParseSettings
from retrieval.errors import ParseError
from retrieval.parse import pdf
from retrieval.parse._ocr import available
from retrieval.parse.worker import ParserPool
from retrieval.schema import Parsed

SETTINGS = ParseSettings()
Drawn = tuple[int, int, int, str]

FONT_FILES = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/System/Library/Fonts/PingFang.ttc",
    "C:/Windows/Fonts/msyh.ttc",
)
CHINESE_FONT = (
    "<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H "
    "/DescendantFonts [<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light "
    "/CIDSystemInfo << /Registry (Adobe) /Ordering (GB1) /Supplement 2 >> /DW 1000 >>] >>"
)
FONTS = f"<< /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> /F2 {CHINESE_FONT} >>"


def box(line: Drawn) -> tuple[int, int, int, int]:
    """Return the corner, the height and the width (0 where the line is text) of a box."""
    x, y, size, text = line
    return x, y, size, int(text.split()[1]) if text.startswith("box ") else 0


def drawing(lines: list[Drawn]) -> str:
    """Return the page operators that draw lines of (x, y, size, text), in points.

    A text "box 90" is not shown: it is a box 90 points wide, its lower left corner at (x, y),
    and `size` points high.
    """
    boxes = [f"{x} {y} {w} {h} re S" for x, y, h, w in map(box, lines) if w]
    drawn = [*boxes, "BT"]
    lines = [line for line in lines if not line[3].startswith("box ")]
    for x, y, size, text in lines:
        chinese = any(ord(char) > 255 for char in text)
        font, shown = (
            ("F2", f"<{text.encode('utf-16-be').hex()}>") if chinese else ("F1", f"({text})")
        )
        drawn.append(f"/{font} {size} Tf 1 0 0 1 {x} {y} Tm {shown} Tj")
    return "\n".join([*drawn, "ET"])


def make_pdf(path: Path, pages: list[list[Drawn]], trailer: str = "") -> Path:
    """Write a PDF by hand, so that nothing but its reader is under test."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    for lines in pages:
        stream = drawing(lines)
        number = len(objects) + 1
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] "
            f"/Resources << /Font {FONTS} >> /Contents {number + 1} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    kids = " ".join(f"{3 + 2 * index} 0 R" for index in range(len(pages)))
    objects[1] = f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>"
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    data += (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer << /Size {size} /Root 1 0 R {trailer} >>\nstartxref\n{len(data)}\n%%EOF"
    ).encode()
    path.write_bytes(data)
    return path


def texts(parsed: Parsed) -> list[str]:
    """Return the text of every block."""
    return [parsed.text[b.start : b.end] for b in parsed.blocks]


def test_lines_become_paragraphs_again(tmp_path: Path) -> None:
    """Wrapped English joins by a space, a broken word without its hyphen, Chinese by nothing."""
    english = [
        "The quick brown fox jumps over the lazy dog while the patient obser-",
        "vation of the river continues, and nobody in the village thought about",
        "the consequences of that day.",
    ]
    chinese = [
        "检索增强生成把文档检索与语言模型结合起来，使得回答能够引用真实的",
        "文献来源，而不是凭空编造。",
    ]
    page: list[Drawn] = [(72, 740, 20, "Annual Report")]
    page += [(72, 700 - 15 * row, 11, text) for row, text in enumerate(english)]
    page += [(72, 630, 11, "A second paragraph.")]
    page += [(72, 590 - 15 * row, 11, text) for row, text in enumerate(chinese)]
    parsed = pdf.parse(make_pdf(tmp_path / "a.pdf", [page]), SETTINGS)
    assert [h.text for h in parsed.headings] == ["Annual Report"]
    assert parsed.title == "Annual Report"
    assert texts(parsed) == [
        "The quick brown fox jumps over the lazy dog while the patient observation of the river "
        "continues, and nobody in the village thought about the consequences of that day.",
        "A second paragraph.",
        "".join(chinese),
    ]


def test_a_sentence_goes_on_over_the_end_of_a_page(tmp_path: Path) -> None:
    """Running titles and page numbers do not stand in the middle of a sentence."""
    pages: list[list[Drawn]] = [
        [
            (72, 800, 9, "Company handbook"),
            (
                72,
                700,
                11,
                f"Part {number} of a long sentence which runs on to the end of its page and",
            ),
            (290, 30, 9, str(number)),
        ]
        for number in range(1, 4)
    ]
    pages[1][1] = (72, 700, 11, "continues here.")
    parsed = pdf.parse(make_pdf(tmp_path / "a.pdf", pages), SETTINGS)
    assert texts(parsed)[0].endswith("its page and continues here.")
    assert "handbook" not in parsed.text


WORDS = "which goes on for a while and says what it has to say about"


def test_columns_are_read_one_after_the_other(tmp_path: Path) -> None:
    """Two columns drawn line by line across the page are read down, the title first."""
    page: list[Drawn] = [(60, 780, 18, "A title over both of the columns of this page")]
    for row in range(6):
        page.append((60, 740 - 14 * row, 10, f"Left {row} {WORDS[:40]}"))
        page.append((320, 740 - 14 * row, 10, f"right {row} {WORDS[:40]}"))
    text = pdf.parse(make_pdf(tmp_path / "a.pdf", [page]), SETTINGS).text
    order = [text.index(f"{side} {row}") for side in ("Left", "right") for row in range(6)]
    assert order == sorted(order)


def test_ruled_tables_are_rows_that_name_their_columns(tmp_path: Path) -> None:
    """Cells between rules become rows, wrapped Chinese is joined, prose around it stays prose."""
    page: list[Drawn] = [(60, 780, 11, "Before the table."), (60, 600, 11, "After the table.")]
    cells = [["名称", "类型", "说明"], ["超时", "整数", "请求被放弃之前"], ["重试", "整数", "次数"]]
    for i, row in enumerate(cells):
        for j, text in enumerate(row):
            page += [(60 + 100 * j, 720 - 40 * i, 40, "box 100")]
            page += [(64 + 100 * j, 745 - 40 * i, 10, text)]
    page.append((264, 692, 10, "可以花费的时间"))
    parsed = pdf.parse(make_pdf(tmp_path / "a.pdf", [page]), SETTINGS)
    assert [(b.kind, text) for b, text in zip(parsed.blocks, texts(parsed), strict=True)] == [
        ("paragraph", "Before the table."),
        ("table_row", "名称：超时；类型：整数；说明：请求被放弃之前可以花费的时间"),
        ("table_row", "名称：重试；类型：整数；说明：次数"),
        ("paragraph", "After the table."),
    ]


def test_a_compound_keeps_its_hyphen(tmp_path: Path) -> None:
    """A hyphen at a line's end goes or stays as the rest of the document writes the word."""
    lines = [
        "The well-known record of the harbour was kept by its founder, who had written the well-",
        "known pages by hand, and the rest of the record was lost; nobody has seen the old rec-",
        "ord since.",
    ]
    page: list[Drawn] = [(72, 700 - 14 * row, 11, text) for row, text in enumerate(lines)]
    assert texts(pdf.parse(make_pdf(tmp_path / "a.pdf", [page]), SETTINGS)) == [
        "The well-known record of the harbour was kept by its founder, who had written the "
        "well-known pages by hand, and the rest of the record was lost; nobody has seen the old "
        "record since."
    ]


def test_a_table_of_contents_is_left_out(tmp_path: Path) -> None:
    """Entries that lead to a page number repeat the headings and answer nothing."""
    page: list[Drawn] = [(72, 700, 11, "1 Start . . . . . . . . . 12"), (72, 600, 11, "Text.")]
    assert pdf.parse(make_pdf(tmp_path / "a.pdf", [page]), SETTINGS).text == "Text."


def scan(path: Path, lines: list[str]) -> Path:
    """Write a PDF of one page that is only a picture of `lines`."""
    font = next((f for f in FONT_FILES if Path(f).exists()), None)
    if font is None:
        pytest.skip("no font with Chinese characters")
    picture = Image.new("L", (1240, 1754), 255)
    pen = ImageDraw.Draw(picture)
    for row, text in enumerate(lines):
        pen.text((120, 300 + 60 * row), text, font=ImageFont.truetype(font, 28), fill=0)
    picture.save(path, resolution=150)
    return path


@pytest.mark.skipif(not available(), reason="needs plumbline[ocr]")
def test_a_scan_is_read_in_both_languages(tmp_path: Path) -> None:
    """Pictures of pages are read within the worker's limits, English and Chinese."""
    english = "The harbour of Varnholm was built in 1874 by Erik Lund."
    path = scan(
        tmp_path / "a.pdf", [english, "", "港口由埃里克于一八七四年建成，他从北方来到这里。"]
    )
    with ParserPool(SETTINGS) as pool:
        parsed = pool.parse(path)
    assert texts(parsed) == [english, "港口由埃里克于一八七四年建成，他从北方来到这里。"]


@pytest.mark.skipif(not available(), reason="needs plumbline[ocr]")
def test_scanned_pages_beyond_the_time_are_named(tmp_path: Path) -> None:
    """Pages that there is no time to recognise are named by number, with the remedy."""
    first = make_pdf(tmp_path / "a.pdf", [[(72, 700, 11, "A page of text.")]])
    joined = pypdfium2.PdfDocument(first)
    joined.import_pages(pypdfium2.PdfDocument(scan(tmp_path / "b.pdf", ["words"])))
    joined.save(tmp_path / "c.pdf")
    parsed = pdf.parse(tmp_path / "c.pdf", ParseSettings(seconds=1e-9))
    assert texts(parsed) == ["A page of text."]
    assert parsed.notes == ("pages 2 of 2: pictures without text; raise retrieval.parse.seconds",)


@pytest.mark.parametrize(
    ("pages", "trailer", "reason"),
    [
        ([[], []], "", "no_text"),
        (
            [[(72, 700, 11, "secret")]],
            f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{'41' * 32}> /U <{'42' * 32}> /P -4 >> "
            "/ID [<00> <00>]",
            "encrypted",
        ),
    ],
)
def test_a_scan_and_a_locked_file_are_named(
    tmp_path: Path, pages: list[list[Drawn]], trailer: str, reason: str
) -> None:
    """A PDF without a text layer asks for OCR; one with a password for its removal."""
    with pytest.raises(ParseError) as caught:
        pdf.parse(make_pdf(tmp_path / "a.pdf", pages, trailer), SETTINGS)
    assert caught.value.reason == reason

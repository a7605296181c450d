from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.config import ParseSettings
from retrieval.errors import ParseError
from retrieval.parse import pdf
from retrieval.schema import Parsed

SETTINGS = ParseSettings()
Drawn = tuple[int, int, int, str]

CHINESE_FONT = (
    "<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H "
    "/DescendantFonts [<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light "
    "/CIDSystemInfo << /Registry (Adobe) /Ordering (GB1) /Supplement 2 >> /DW 1000 >>] >>"
)
FONTS = f"<< /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> /F2 {CHINESE_FONT} >>"


def drawing(lines: list[Drawn]) -> str:
    """Return the page operators that draw lines of (x, y, size, text), in points."""
    drawn = ["BT"]
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

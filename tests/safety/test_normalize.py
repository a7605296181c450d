from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.normalize import normalize, views

#: Text that is rich in what the normaliser rewrites.
TRICKY = st.text(
    alphabet=st.one_of(
        st.characters(),
        st.sampled_from(
            "aeiklo014357@$!| .-_*/,、。　杀死怎么人ＡＢｃ①ｶﾞéß\u0301\u200b\u00ad\ufe0f\r\n\t"
        ),
        st.sampled_from("аеорсхаιοκ繁體國İǅﬃﷺ🅺🇨\U000e0041가"),
    ),
    max_size=80,
)


@given(TRICKY)
def test_offsets_lead_back(text: str) -> None:
    """Offsets never decrease, start inside the text and end at its end."""
    plain = normalize(text)
    assert len(plain.text) + 1 == len(plain.offsets)
    assert list(plain.offsets) == sorted(plain.offsets)
    assert plain.offsets[-1] == len(text)
    assert all(0 <= o < len(text) for o in plain.offsets[:-1])


@given(TRICKY)
def test_normalising_again_changes_nothing(text: str) -> None:
    """What is plain stays plain, so no trick hides behind another."""
    once = normalize(text).text
    assert once == normalize(once).text


@given(TRICKY, st.data())
def test_spans_are_stretches_of_the_original(text: str, data: st.DataObject) -> None:
    """Any span of any view maps to a valid stretch of the original."""
    for view in views(text):
        start = data.draw(st.integers(0, len(view.text)))
        end = data.draw(st.integers(start, len(view.text)))
        low, high = view.original(start, end)
        assert 0 <= low <= high <= len(text)


@given(st.text(alphabet="abc def,.", max_size=60).filter(lambda t: "  " not in t))
def test_words_of_plain_text_stay(text: str) -> None:
    """Ordinary words are left as they are."""
    words = [w for w in text.replace(",", " ").replace(".", " ").split() if len(w) > 1]
    assert all(w in normalize(text).text for w in words)


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("Ｈｅｌｌｏ", "hello"),
        ("k i l l", "kill"),
        ("h o w   t o   k i l l", "how to kill"),
        ("k.i.l.l t.h.e.m", "kill them"),
        ("h0w t0 m4ke", "how to make"),
        ("p@$$w0rd", "password"),
        ("kіllеr", "killer"),
        ("k\u200bi\u00adl\u2060l", "kill"),
        ("k̸i̸l̸l̸", "kill"),
        ("\u202ekill\u202c", "kill"),
        ("🅺🅸🅻🅻", "kill"),
        ("𝐤𝐢𝐥𝐥", "kill"),
        ("杀 死", "杀死"),
        ("自*杀", "自杀"),
        ("怎、么、杀、人", "怎么杀人"),
        ("如何製造炸彈", "如何制造炸弹"),
        ("don’t", "don't"),
    ],
)
def test_a_disguise_comes_off(disguised: str, plain: str) -> None:
    """Each trick is undone."""
    assert plain == normalize(disguised).text


@pytest.mark.parametrize(
    "text", ["vue 3.4 and 42 apples", "苹果，香蕉。", "$100 at 10:30", "a b", "1234", "你好 world"]
)
def test_numbers_and_punctuation_are_not_letters(text: str) -> None:
    """Digits, prices and Chinese punctuation are not read as leetspeak or spacing."""
    folded = text.replace("，", ",")
    assert folded == normalize(text).text


@pytest.mark.parametrize(
    "encoded",
    [
        base64.b64encode(b"how do I build it").decode(),
        base64.urlsafe_b64encode("怎么做这个东西呢".encode()).decode(),
        b"how do I build it".hex(),
        base64.b64encode(base64.b64encode(b"how do I build it")).decode(),
        "".join(f"%{b:02x}" for b in b"how do I build it"),
        "".join(f"&#{b};" for b in b"how do I build it"),
        "".join(f"\\u{ord(c):04x}" for c in "怎么做这个东西呢"),
        "".join(f"{b:08b} " for b in b"how do I build it"),
        "".join(chr(0xE0000 + b) for b in b"how do I build it"),
        "".join(chr(0xE0100 + b - 16) for b in b"how do I build it"),
        "rot13: ubj qb V ohvyq vg",
        "reversed: ti dliub I od woh",
    ],
)
def test_encoded_text_is_read(encoded: str) -> None:
    """What a text encodes is among its views, once and twice encoded."""
    texts = [v.text for v in views(f"please: {encoded}")]
    assert any("how do I build it" in t or "怎么做这个东西呢" in t for t in texts)


def test_random_bytes_are_no_view() -> None:
    """Digests and identifiers that decode to no language add nothing to judge."""
    text = "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert not [v for v in views(text) if v.kind.startswith("decoded")]

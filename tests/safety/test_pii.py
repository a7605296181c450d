from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import _presidio, pii
from safety.config import SafetySettings
from safety.errors import BackendMissing, ModelUnusable
from safety.leaks import mask as mask_secrets

#: Invented, of valid form: each text, the kind, and the words found. None is a person's.
FOUND = [
    ("Write to jo.doe+news@mail.example.org.", "email", "jo.doe+news@mail.example.org"),
    ("邮箱是zhang_san@example.cn，谢谢", "email", "zhang_san@example.cn"),
    ("Call (212) 555-0123 today", "phone", "(212) 555-0123"),
    ("ring +44 20 7946 0958 now", "phone", "+44 20 7946 0958"),
    ("手机号：13812345678。", "phone", "13812345678"),
    ("电话010-62751234转8001", "phone", "010-62751234转8001"),
    ("身份证11010519491231002X有效", "resident_id", "11010519491231002X"),
    ("card 4539 1488 0343 6467.", "card", "4539 1488 0343 6467"),
    ("卡号6222021234567890128", "card", "6222021234567890128"),
    ("IBAN DE89 3704 0044 0532 0130 00 is mine", "iban", "DE89 3704 0044 0532 0130 00"),
    ("GB29NWBK60161331926819", "iban", "GB29NWBK60161331926819"),
    ("护照号码：E12345678", "passport", "E12345678"),
    ("My passport number is 533380006", "passport", "533380006"),
    ("from 203.0.113.7 at noon", "ip", "203.0.113.7"),
    ("服务器2001:db8:0:1::7上", "ip", "2001:db8:0:1::7"),
    ("SSN: 219-09-9999", "ssn", "219-09-9999"),
    ("her social security number 219099999", "ssn", "219099999"),
    ("key AKIAIOSFODNN7ABCDQRS here", "secret", "AKIAIOSFODNN7ABCDQRS"),
]
#: What looks like it and is not.
ORDINARY = [
    "Released on 2024-01-31 at 10:20:30, build 20240131-000123.",
    "Version 1.2.3.4 listens on 127.0.0.1:8000 and 0.0.0.0, netmask 255.255.255.0.",
    "Set retrieval.parse.max_bytes to 52428800 or 1073741824.",
    "ISBN 978-3-16-148410-0, DOI 10.1145/3292500.3330701, arXiv 2504.11168.",
    "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b, order 4539148803436468",
    "@pytest.mark.parametrize and user@host without a domain; a@b",
    "价格是12345678元，编号 110105194912310021，比例 3.14159265358979。",
    "GB29NWBK60161331926818 and DE00123456781234567890 are no accounts",
    "form 000-12-3456, 666-12-3456 and 123-00-4567",
    "at 12:30:45 and ab:cd the ratio is 1:2:3",
    "In 2020–2021 (2014-01-01) the text 0.000066 was 12 / 1024 / 1024 by 1 2 3 4 5 6 7 8.",
    "ojdbc8-19.9.0.0.jar, kernel 3.10.0-327, imgs[1::3], std::be::c, icon@2x.png",
    "The flight E12345678 and number 533380006 in a table",
]


@pytest.mark.parametrize(("text", "kind", "words"), FOUND)
def test_each_kind_is_found_where_it_stands(text: str, kind: str, words: str) -> None:
    """The span covers the data and nothing else, in both languages; the mask names the kind."""
    (found,) = pii.find(text)
    assert (found.kind, text[found.start : found.end]) == (kind, words)
    assert pii.LEAST <= found.score <= 1
    assert pii.mask(text) == text.replace(words, f"[{kind}]")


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_numbers_stay(text: str) -> None:
    """Dates, versions, digests, identifiers and numbers without their checksum are not touched."""
    assert pii.find(text) == ()


def test_only_the_kinds_asked_for_are_masked() -> None:
    """A kind that is not named stays as it is."""
    text = "jo@example.org, 203.0.113.7"
    assert pii.mask(text, ("ip",)) == "jo@example.org, [ip]"
    assert pii.mask(text, ()) == text


@pytest.mark.parametrize(
    ("plain", "named", "kind"),
    [
        ("number 0123456789", "fax 0123456789", "phone"),
        ("the code 219099999", "SSN 219099999", "ssn"),
        ("table AB123456", "passport AB123456", "passport"),
        ("编号 AB123456", "护照 AB123456", "passport"),
        ("编号 110105491231002", "身份证 110105491231002", "resident_id"),
    ],
)
def test_words_beside_decide_on_weak_forms(plain: str, named: str, kind: str) -> None:
    """A form that many things have counts only beside a word that says what it is."""
    assert pii.find(plain) == ()
    assert [f.kind for f in pii.find(named)] == [kind]


def test_regions_are_a_setting() -> None:
    """A national number is known in the regions that are set, and in no other."""
    text = "(212) 555-0123"
    assert pii.build(SafetySettings()).find(text)
    assert not pii.build(SafetySettings(pii_regions=("GB",))).find(text)


@given(st.text(max_size=300))
def test_masking_leaves_the_rest_and_is_done_once(text: str) -> None:
    """Spans lie in order and apart; the text between them is kept, whatever the text is."""
    found = pii.find(text)
    assert all(a.end <= b.start for a, b in pairwise(found))
    rest, at = "", 0
    for f in found:
        rest, at = rest + text[at : f.start] + f"[{f.kind}]", f.end
    assert pii.mask(text) == rest + text[at:]


@pytest.mark.parametrize("piece", ["1 ", "4539 1488 ", "a@", "1.2.", "AB12 ", "::1", "+1(", "护照"])
def test_hostile_texts_take_no_longer_than_long_ones(piece: str) -> None:
    """100,000 characters made to mislead a pattern are searched within seconds."""
    began = time.perf_counter()
    pii.find(piece * (100_000 // len(piece)))
    assert time.perf_counter() - began < 8


def test_outputs_lose_what_the_settings_name() -> None:
    """By default secrets, ids and cards, marked as ever; other kinds where they are named."""
    text = "key AKIAIOSFODNN7ABCDQRS, card 4539 1488 0343 6467, jo@example.org"
    finder, usual = pii.Finder(), SafetySettings().pii_mask
    assert finder.leaving(text, "", usual) == mask_secrets(text)
    more = finder.leaving(text, "", ("secret", "email"))
    assert more.text == "key [aws_key], card 4539 1488 0343 6467, [email]"
    assert finder.leaving("it is plumb-canary", "plumb-canary", ()).canary


def test_a_log_line_is_masked_with_its_trace() -> None:
    """What a library writes into a log, its exception included, has no personal data."""
    formatter = pii.MaskingFormatter("%(levelname)s %(message)s", pii.Finder(), pii.KINDS)
    try:
        raise ValueError("bad row: jo@example.org")
    except ValueError as error:
        trace = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "call of %s", ("13812345678",), trace)
    line = formatter.format(record)
    assert line.startswith("ERROR call of [phone]")
    assert ("[email]" in line, "jo@example.org" in line) == (True, False)


class Analyzer:
    """Presidio's AnalyzerEngine as far as its public API is used."""

    def __init__(self, nlp_engine: Any, supported_languages: Sequence[str]) -> None:
        assert nlp_engine == {"nlp_engine_name": "spacy", "models": MODELS}
        self.languages = list(supported_languages)

    def get_supported_entities(self, language: str) -> list[str]:
        """Entities of a language."""
        assert language in self.languages
        return ["PERSON", "LOCATION", "NRP", "EMAIL_ADDRESS"]

    def analyze(self, text: str, language: str, entities: Sequence[str]) -> list[Any]:
        """Say that the first word is a person."""
        assert "NRP" not in entities
        end = len(text.split()[0])
        return [SimpleNamespace(entity_type="PERSON", start=0, end=end, score=0.85)]


class Provider:
    """Presidio's NlpEngineProvider."""

    def __init__(self, nlp_configuration: Any) -> None:
        self.configuration = nlp_configuration

    def create_engine(self) -> Any:
        """Give the engine."""
        return self.configuration


MODELS = [{"lang_code": "en", "model_name": "en_core_web_sm"}]
API = SimpleNamespace(AnalyzerEngine=Analyzer, NlpEngineProvider=Provider)


def test_presidio_is_asked_for_names() -> None:
    """Its finds join ours under our kinds, in the languages that it has a model for."""
    engine = _presidio.build(["en:en_core_web_sm"], API, lambda _name: True)
    finder = pii.Finder(engine=engine)
    assert finder.mask("Ada wrote to jo@example.org") == "[person] wrote to [email]"
    assert finder.mask("张三 写信") == "张三 写信"
    assert finder.mask("Ada wrote", ("email",)) == "Ada wrote"


def test_presidio_fetches_nothing() -> None:
    """A model that is not there, or badly named, is an error and no download."""
    with pytest.raises(ModelUnusable, match="'en_core_web_sm' is not installed"):
        _presidio.build(["en:en_core_web_sm"], API, lambda _name: False)
    with pytest.raises(ModelUnusable, match="write language:model"):
        _presidio.build(["en_core_web_sm"], API, lambda _name: True)


def test_presidio_missing_is_named() -> None:
    """Without the library the setting is an error that says what to install."""
    try:
        import presidio_analyzer  # noqa: F401
    except ImportError:
        with pytest.raises(BackendMissing, match=r"plumbline\[pii\]"):
            pii.build(SafetySettings(pii_presidio=("en:en_core_web_sm",)))
    else:
        pytest.skip("presidio-analyzer is installed")

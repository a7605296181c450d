from __future__ import annotations

import base64

import pytest

from safety.leaks import mask

CANARY = "plumb-canary-7f3a99e1"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("key AKIAIOSFODNN7ABCDQRS here", "key [aws_key] here"),
        ("use sk-proj-abcDEF123456ghiJKL789mno now", "use [api_key] now"),
        ("token ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bD1fG3hJ5", "token [token]"),
        ("api_key = 'a8Fk29sLq0Zx71MnB4tY6rWe'", "[secret]'"),
        ("card 4111 1111 1111 1112, no", "card 4111 1111 1111 1112, no"),
        ("card 5105 1051 0510 5100, no", "card 5105 1051 0510 5100, no"),
        ("card 4539 1488 0343 6467.", "card [card]."),
        ("身份证 11010519491231002X。", "身份证 [resident_id]。"),
        ("编号 110105194912310021。", "编号 110105194912310021。"),
    ],
)
def test_secrets_are_masked_and_numbers_stay(text: str, masked: str) -> None:
    """A secret with a valid form and checksum is masked, a number without one is not."""
    assert masked == mask(text).text


def test_a_private_key_is_masked_whole() -> None:
    """A key block goes from its first to its last line, and so does one that was cut off."""
    block = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA1234\nabcd\n"
    assert mask(f"a {block}-----END RSA PRIVATE KEY----- b").text == "a [private_key] b"
    assert mask(f"a {block}").text == "a [private_key]"


@pytest.mark.parametrize(
    "text",
    [
        "Set OPENAI_API_KEY=your-api-key-goes-here-please in the environment.",
        "api_key: xxxxxxxxxxxxxxxxxxxxxxxx",
        "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "order 20240131-000123, phone 010-12345678",
        "timestamp 1700000000000 and 2024-01-31 10:20:30",
        "AKIAIOSFODNN7EXAMPLE is the documentation's own",
        "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----",
    ],
)
def test_documentation_is_not_masked(text: str) -> None:
    """Placeholders, digests, dates and public material stay readable."""
    assert text == mask(text).text


@pytest.mark.parametrize(
    "text",
    [
        CANARY,
        CANARY.upper(),
        "-".join(CANARY),
        "\u200b".join(CANARY),
        base64.b64encode(CANARY.encode()).decode(),
        CANARY.encode().hex(),
    ],
)
def test_the_canary_is_found_in_disguise(text: str) -> None:
    """A leaked canary is noticed in capitals, spread out or encoded."""
    assert mask(f"it says: {text} ok", CANARY).canary
    assert not mask("it says nothing", CANARY).canary


def test_spans_are_offsets_into_the_text() -> None:
    """Spans name the masked stretches of the original, in order."""
    text = "a AKIAIOSFODNN7ABCDQRS b 4539 1488 0343 6467"
    assert [text[s.start : s.end] for s in mask(text).spans] == [
        "AKIAIOSFODNN7ABCDQRS",
        "4539 1488 0343 6467",
    ]

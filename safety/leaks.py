"""Secrets and personal numbers in an output, found by form and checksum, and masked.

Deterministic on purpose: fixed checks outside the model are the defence that adaptive attacks
did not get past (arXiv 2604.23887).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from safety.normalize import views
from safety.schema import Span

#: Rules that find a person's number; all others find secrets.
DIGITS = ("resident_id", "card")
_NO_LETTER = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Leak:
    """The text with secrets masked, where they were, and whether the canary was among them."""

    text: str
    spans: tuple[Span, ...] = ()
    canary: bool = False


def luhn(digits: str) -> bool:
    """Luhn's checksum (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    # An issuer's first digit and a mixed body: order numbers and timestamps rarely pass both.
    return 13 <= len(digits) <= 19 and digits[0] in "3456" and len(set(digits)) > 3 and luhn(digits)


def resident_id(found: str) -> bool:
    """Checksum of a mainland resident identity number (GB 11643-1999)."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(d) * w for d, w in zip(found, weights, strict=False))
    return "10X98765432"[total % 11] == found[-1].upper()


def _mixed(found: str) -> bool:
    """A random-looking value: placeholders such as `your-api-key` or `xxxx` are no secrets."""
    value = re.split(r"[:=\s'\"]+", found.rstrip("'\""))[-1]
    kinds = sum(bool(re.search(k, value)) for k in ("[a-z]", "[A-Z]", "[0-9]"))
    return kinds >= 2 and len(set(value)) >= 10 and not re.search(r"(?i)example|sample|your", value)


def _real(found: str) -> bool:
    return len(set(found)) >= 8 and "example" not in found.lower()


@dataclass(frozen=True, slots=True)
class _Form:
    rule: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool] = _real


#: Quantifiers are bounded or end at a class the next part cannot start with: linear time.
_FORMS = (
    _Form(
        "private_key",
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
            r"[A-Za-z0-9+/=\s:,.\-]{0,8192}?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)"
        ),
    ),
    _Form("aws_key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    _Form("api_key", re.compile(r"\bsk-(?:proj-|ant-|live-)?[A-Za-z0-9_-]{20,200}(?![\w-])")),
    _Form("api_key", re.compile(r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,120}\b")),
    _Form("api_key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}(?![\w-])")),
    _Form("api_key", re.compile(r"\bLTAI[0-9A-Za-z]{12,24}\b")),
    _Form("token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255})\b")),
    _Form("token", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,60}(?![\w-])")),
    _Form("token", re.compile(r"\bhf_[A-Za-z0-9]{30,60}\b")),
    _Form("token", re.compile(r"\bxox[abposr]-[A-Za-z0-9-]{10,200}(?![\w-])")),
    _Form(
        "token",
        re.compile(r"\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[\w-]{10,2000}"),
    ),
    _Form(
        "secret",
        re.compile(
            r"(?i)\b(?:api[_-]?key|secret[_-]?(?:access[_-]?)?key|access[_-]?token|client[_-]?secret"
            r"|auth[_-]?token)[\"']?\s{0,3}[:=]\s{0,3}[\"']?[A-Za-z0-9+/_-]{20,120}={0,2}(?![\w+/-])"
        ),
        _mixed,
    ),
    _Form(
        "resident_id",
        re.compile(r"(?<!\d)[1-9]\d{5}(?:19|20)\d{9}[\dXx](?![\dA-Za-z])"),
        resident_id,
    ),
    _Form("card", re.compile(r"(?<![\w.-])\d{4}(?:[ -]?\d{2,6}){2,4}(?![\w-]|\.\d)"), _card),
)


def found(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, rule) of every secret and number, in no order."""
    for form in _FORMS:
        for match in form.pattern.finditer(text):
            if form.check(match.group()):
                yield match.start(), match.end(), form.rule


def _spellings(canary: str) -> set[str]:
    """The canary as letters and digits alone: plain, backwards, in hex, and in base64.

    Base64 depends on where in its text the canary stands: three alignments, each without the
    characters that its neighbours share.
    """
    data = canary.encode()
    forms = {canary, canary[::-1], data.hex()}
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        forms.add(coded[(0, 2, 3)[shift] : -1 if (len(data) + shift) % 3 else None])
    return {_NO_LETTER.sub("", form).casefold() for form in forms}


def has_canary(text: str, canary: str) -> bool:
    """Whether the canary stands in any view of the text: plain, normalised, decoded, spaced."""
    if not canary:
        return False
    forms = {form for form in _spellings(canary) if len(form) >= 8}
    bare = (_NO_LETTER.sub("", view.text).casefold() for view in views(text))
    return canary in text or any(form in one for one in bare for form in forms)


def mask(text: str, canary: str = "") -> Leak:
    """Replace every secret by `[rule]`; spans are offsets into `text`, in order."""
    spans: list[Span] = []
    for start, end, rule in sorted(found(text)):
        if spans and start < spans[-1].end:
            spans[-1] = Span(spans[-1].start, max(end, spans[-1].end), spans[-1].rule)
        else:
            spans.append(Span(start, end, rule))
    out, at = [], 0
    for span in spans:
        out += [text[at : span.start], f"[{span.rule}]"]
        at = span.end
    return Leak("".join([*out, text[at:]]), tuple(spans), has_canary(text, canary))

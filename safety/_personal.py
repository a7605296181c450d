"""Forms of personal data: patterns, checksums, and the words that stand beside them.

Every pattern follows from a published format: E.164 and national numbering plans (phonenumbers),
GB 11643 (resident ids), ISO/IEC 7812 (cards), ISO 13616 (IBAN), ICAO 9303 (passports), RFC 791
and 4291 (addresses), RFC 5321 (mail). Quantifiers are bounded: time is linear in the text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from safety.leaks import luhn, resident_id

#: (start, end, confidence, rule)
Hit = tuple[int, int, float, str]

#: Characters before and after a form in which a word that explains it may stand.
BEFORE, AFTER = 48, 24
_WORDS = {
    "phone": re.compile(
        r"(?i)\b(?:tele)?phones?\b|\b(?:tel|mobile|cell|fax|call(?:ed|ing)?|dial|sms|whatsapp"
        r"|hotline|reach (?:me|us|him|her|them)|contact)\b"
        r"|电话|手机|座机|传真|热线|致电|拨打|联系方式"
    ),
    "passport": re.compile(r"(?i)\bpassports?\b|\btravel document\b|护照|通行证"),
    "card": re.compile(
        r"(?i)\b(?:credit|debit|bank|payment)\b|\bcards?\b|\b(?:visa|mastercard|maestro|amex)\b"
        r"|银行卡|信用卡|储蓄卡|卡号|账号"
    ),
    "resident_id": re.compile(r"(?i)\bid(?:entity)?\b|\bresident\b|身份证|证件号"),
    "ssn": re.compile(r"(?i)\bssn\b|\bsocial[ -]security\b|社会(?:安全|保障)号"),
    "version": re.compile(r"(?i)\b(?:version|ver|v|release|build|section|chapter)\.? ?$|版本 ?$"),
}

_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9_][\w.+'-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,6}"
    r"[A-Za-z]{2,24}(?![A-Za-z0-9@-])",
    re.ASCII,
)
_PHONE = re.compile(
    r"(?<![\w.,/:=@#$€£¥-])(?:\+|00)?\(?\d(?:[ \u00a0]?[().\-/–]?[ \u00a0]?\(?\d){6,16}"
    r"(?:[ ,]{0,2}(?:x|ext\.?|#|转)[ ]?\d{1,6})?(?![\w@]|[.,:/-]\d)",
    re.ASCII,
)
#: `icon@2x.png` is a picture at twice its size.
_PICTURE = re.compile(r"@\dx?\.[a-z]+$")
#: Digits in groups that are no number to dial: dates, spans of years, digits one by one, sums,
#: decimals and versions.
_NO_PHONE = re.compile(
    r"\(?(?:19|20)\d\d[-/. ]\d{1,2}[-/. ]\d{1,2}|\(?\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)\d\d"
    r"|\(?(?:1\d|20)\d\d ?[-–] ?(?:1\d|20)\d\d\)?$"
    r"|.*(?<!\d)\d[ ]+\d[ ]+\d(?!\d)|.*/.*/|.*[ ]/[ ]"
    r"|\d+\.\d+(?![.\d])|(?:.*[^\d])?\d\.\d|(?:\d{1,3}\.){3}\d{1,3}$",
    re.DOTALL,
)
_MOBILE_CN = re.compile(r"1[3-9]\d(?:[ -]?\d{4}){2}")
_RESIDENT = re.compile(r"(?<![0-9A-Za-z])[1-9]\d{5}(?:18|19|20)\d{9}[\dXx](?![0-9A-Za-z])")
_RESIDENT_OLD = re.compile(r"(?<![\w.-])[1-9]\d{14}(?![\w-]|\.\d)", re.ASCII)
_CARD = re.compile(r"(?<![\w.-])\d{4}(?:[ -]?\d{2,6}){2,4}(?![\w-]|\.\d)", re.ASCII)
_PASSPORT = re.compile(
    r"(?<![\w-])(?:[A-Z]{1,2}\d{6,8}|[A-Z]\d{2}[A-Z]{2}\d{4}|\d{9}|\d{2}[A-Z]{2}\d{5})(?![\w-])",
    re.ASCII,
)
_PASSPORT_CN = re.compile(r"(?:[DEGHPS]\d{8}|E[A-HJ-NP-Z]\d{7})")
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
)
_IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|[.-]\w)", re.ASCII)
#: Addresses that are handed out begin with four digits: 2000::/3, fc00::/7, fe80::/10.
_IPV6 = re.compile(
    r"(?<![\w:.])[0-9A-Fa-f]{4}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:])", re.ASCII
)
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}([- ]?)(?!00)\d\d\1(?!0000)\d{4}(?![\w-])")

#: Length of an IBAN by country (SWIFT's registry of ISO 13616).
_IBAN_LENGTHS = dict(
    (entry[:2], int(entry[2:]))
    for entry in """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18
    DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23
    IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27
    MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19
    SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
    """.split()
)
#: First digits of issuers (ISO/IEC 7812), and the lengths of their numbers.
_ISSUERS: tuple[tuple[re.Pattern[str], frozenset[int]], ...] = (
    (re.compile("4"), frozenset((13, 16, 19))),
    (re.compile("5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), frozenset((16,))),
    (re.compile("3[47]"), frozenset((15,))),
    (re.compile("6011|64[4-9]|65"), frozenset((16, 17, 18, 19))),
    (re.compile("62|81"), frozenset((16, 17, 18, 19))),
    (re.compile("352[89]|35[3-8]"), frozenset((16, 17, 18, 19))),
    (re.compile("30[0-5]|3095|36|3[89]"), frozenset((14, 15, 16, 17, 18, 19))),
    (re.compile("220[0-4]"), frozenset((16, 17, 18, 19))),
)
_MAESTRO = re.compile("50|5[6-9]|6")
#: Provinces of a resident id's first two digits.
_PROVINCES = frozenset(
    first + rest
    for first, last in (
        (10, 5),
        (20, 3),
        (30, 7),
        (40, 6),
        (50, 4),
        (60, 5),
        (70, 1),
        (80, 3),
        (90, 1),
    )
    for rest in range(0 if first == 50 else 1, last + 1)
)


def beside(kind: str, text: str, start: int, end: int) -> bool:
    """Whether a word that explains this kind stands near."""
    pattern = _WORDS[kind]
    return bool(
        pattern.search(text, max(0, start - BEFORE), start)
        or pattern.search(text, end, min(len(text), end + AFTER))
    )


def emails(text: str) -> Iterator[Hit]:
    """Mail addresses."""
    for m in _EMAIL.finditer(text) if "@" in text else ():
        local = m.group().split("@")[0]
        if ".." not in local and not local.endswith(".") and not _PICTURE.search(m.group()):
            yield m.start(), m.end(), 0.95, "address"


def phones(text: str, regions: Sequence[str]) -> Iterator[Hit]:
    """Telephone numbers: with +, of the regions' plans, or beside a word that says so."""
    for m in _PHONE.finditer(text):
        found = m.group()
        digits = re.sub(r"\D", "", found)
        if _NO_PHONE.match(found) or not 7 <= len(digits) <= 20:
            continue
        named = beside("phone", text, m.start(), m.end())
        if found.startswith(("+", "00")):
            if _valid("+" + digits.lstrip("0") if found[0] == "0" else found, None):
                yield m.start(), m.end(), 0.9, "international"
            elif named and len(digits) <= 15:
                yield m.start(), m.end(), 0.6, "by its word"
            continue
        shaped = bool(re.search(r"[() \-–]", found)) or _MOBILE_CN.fullmatch(found) is not None
        valid = (named or shaped) and any(_valid(found, region) for region in regions)
        if valid:
            yield m.start(), m.end(), 0.85 if named else 0.6, "national"
        elif named and len(digits) <= 15:
            yield m.start(), m.end(), 0.6, "by its word"


def _valid(found: str, region: str | None) -> bool:
    library = _phonenumbers()
    try:
        return bool(library.is_valid_number(library.parse(found, region)))
    except library.NumberParseException:
        return False


@lru_cache(maxsize=1)
def _phonenumbers() -> Any:
    import phonenumbers  # on first use: its tables take a moment

    return phonenumbers


def resident_ids(text: str) -> Iterator[Hit]:
    """Mainland resident ids: 18 digits with checksum, or 15 beside a word that says so."""
    for m in _RESIDENT.finditer(text):
        found = m.group()
        if int(found[:2]) in _PROVINCES and _born(found[6:14]) and resident_id(found):
            yield m.start(), m.end(), 0.95, "checksum"
    for m in _RESIDENT_OLD.finditer(text):
        found = m.group()
        good = int(found[:2]) in _PROVINCES and _born("19" + found[6:12])
        if good and beside("resident_id", text, m.start(), m.end()):
            yield m.start(), m.end(), 0.6, "old form"


def _born(digits: str) -> bool:
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) <= date.today()
    except ValueError:
        return False


def cards(text: str) -> Iterator[Hit]:
    """Payment card numbers: a known issuer's digits, its length, and Luhn's checksum."""
    for m in _CARD.finditer(text):
        digits = re.sub(r"\D", "", m.group())
        if len(set(digits)) < 2 or not luhn(digits):
            continue
        if any(p.match(digits) and len(digits) in lengths for p, lengths in _ISSUERS):
            yield m.start(), m.end(), 0.9, "issuer"
            continue
        maestro = _MAESTRO.match(digits) is not None and 12 <= len(digits) <= 19
        if maestro and beside("card", text, m.start(), m.end()):
            yield m.start(), m.end(), 0.6, "by its word"


def passports(text: str) -> Iterator[Hit]:
    """Passport numbers, only beside a word that says so: their forms alone are common."""
    if not _WORDS["passport"].search(text):
        return
    for m in _PASSPORT.finditer(text):
        if beside("passport", text, m.start(), m.end()):
            chinese = _PASSPORT_CN.fullmatch(m.group()) is not None
            yield m.start(), m.end(), 0.85 if chinese else 0.65, "by its word"


def ibans(text: str) -> Iterator[Hit]:
    """International bank account numbers: the country's length, and the checksum modulo 97."""
    for m in _IBAN.finditer(text):
        plain = re.sub(r"[ -]", "", m.group())
        length = _IBAN_LENGTHS.get(plain[:2], 0)
        end = m.end()
        if len(plain) > length > 0:  # the next word was taken for its end
            end, plain = _cut(text, m.start(), length), plain[:length]
            if text[end : end + 1].isalnum():
                continue
        if (
            len(plain) == length
            and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1
        ):
            yield m.start(), end, 0.95, "checksum"


def _cut(text: str, start: int, count: int) -> int:
    """The offset after `count` letters and digits."""
    at = start
    while count:
        count -= text[at].isalnum()
        at += 1
    return at


def addresses(text: str) -> Iterator[Hit]:
    """IP addresses that can be a machine's of its own; not loopback, netmasks or versions."""
    for pattern, rule in ((_IPV4, "v4"), (_IPV6, "v6")):
        for m in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(m.group())
            except ValueError:
                continue
            common = address.is_loopback or address.is_unspecified or address.is_multicast
            if common or (rule == "v4" and m.group().startswith(("0.", "255."))):
                continue
            if not _WORDS["version"].search(text[max(0, m.start() - 12) : m.start()]):
                yield m.start(), m.end(), 0.7, rule


def ssns(text: str) -> Iterator[Hit]:
    """US social security numbers; without dashes only beside a word that says so."""
    for m in _SSN.finditer(text):
        named = beside("ssn", text, m.start(), m.end())
        if named or m[1] == "-":
            yield m.start(), m.end(), 0.85 if named else 0.5, "by its word" if named else "dashes"

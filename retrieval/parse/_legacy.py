"""Encodings from before Unicode, told apart by the characters that people write most.

Every candidate reads the bytes; the one whose text looks most like a language wins. Chinese and
Korean share their byte ranges, as do Windows code pages, so that being decodable proves nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from charset_normalizer import from_bytes

_SAMPLE = 64 * 1024
#: The most frequent characters, about half of any running text; then their traditional forms.
_HANS = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作"
    "里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从"
    "想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头"
    "文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提"
    "立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务"
    "做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像"
)
_HANT = frozenset(
    "這個們來為國說時會對過發後裡經當沒動還進樣開從實軍無長機關點業將兩間問並應戰頭體見產給門東聲員論處"
    "義幾認條氣題別變總電數報結務場計資統區隊決馬書則聽達強難麼學與"
) | frozenset(
    "的一是不了在人有我他中上大和地到以要就出可也你生能而子那得於下自之年作用道行所然家種事成方多去法如都"
    "同現面起看定天分好小部其些主理心她本前但因只想日者意力它把十民第公此已工使情明性知全三又正外高由很最"
)
_HANGUL = frozenset(
    "이다는을에의가하고한로사지를은서기시인도리자정대아어그나들일여해수있전부보상제주장스공라안과원동성비국구"
)
_ACCENTED = frozenset("àâäãåæçèéêëìíîïñòóôöõøùúûüßÿÀÂÄÅÆÇÈÉÊÎÖØÜáÁ“”‘’–—…€°£©«»·§\u00a0")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fc]")
_CYRILLIC = re.compile("[а-яёіїє]")
_MARKS = frozenset("，。、：；！？“”（）《》")
_WIDE = re.compile("[^\x00-\x7f]")
#: Below the first a reading is refused; below the second it is a guess that its owner should hear.
_POOR, _SURE = 0.2, 0.45
_CLOSE = 0.1


@dataclass(frozen=True, slots=True)
class Reading:
    """Text as one encoding reads it; `sure` is False where another one comes close."""

    text: str
    encoding: str
    sure: bool


def read_legacy(data: bytes) -> Reading | None:
    """Return the best reading of `data`, None where nothing looks like a language.

    A few damaged bytes (a cut download) are shown as U+FFFD and make the reading a guess.
    """
    sample = data[:_SAMPLE]
    scored = sorted(((_score(sample, name), name) for name in _CANDIDATES), reverse=True)
    (best, name), (second, _) = scored[:2]
    if best >= _POOR:
        text = data.decode(name, errors="replace")
        damaged = text.count("\ufffd")
        if damaged <= max(3, len(text) // 500):
            return Reading(text, name, not damaged and best >= _SURE and best - second > _CLOSE)
    other = from_bytes(sample, cp_isolation=["cp1252", "cp1251", "cp1253", "cp1250"]).best()
    if other is None:
        return None
    try:
        return Reading(data.decode(other.encoding), other.encoding, False)
    except UnicodeError:
        return None


def _score(sample: bytes, name: str) -> float:
    """Say how much a reading looks like its language, 0 to about 1.3."""
    text = sample.decode(name, errors="replace")
    if name.startswith("utf-16") and (len(sample) % 2 or not _HANS & set(text)):
        return 0.0
    wide = _WIDE.findall(text[:-1] if text.endswith("\ufffd") else text)
    if not wide:
        return 0.0
    damaged = wide.count("\ufffd") / len(wide)
    return _CANDIDATES[name](sample, wide) - 5 * damaged


def _share(wide: list[str], known: frozenset[str]) -> float:
    return sum(char in known for char in wide) / len(wide)


def _gb(sample: bytes, wide: list[str]) -> float:
    return _share(wide, _HANS | _MARKS) + 0.3 * _everyday(sample, "gb")


def _big5(sample: bytes, wide: list[str]) -> float:
    return _share(wide, _HANT | _MARKS) + 0.3 * _everyday(sample, "big5")


def _japanese(sample: bytes, wide: list[str]) -> float:
    kana = sum(bool(_KANA.match(char)) for char in wide) / len(wide)
    return 2 * kana if kana > 0.1 else 0.0


def _korean(sample: bytes, wide: list[str]) -> float:
    return _share(wide, _HANGUL) * 1.5


def _utf16(sample: bytes, wide: list[str]) -> float:
    return _share(wide, _HANS | _HANT | _MARKS) * 1.5


def _western(sample: bytes, wide: list[str]) -> float:
    """Accented letters stand alone between plain ones; in Chinese high bytes come in runs."""
    return _share(wide, _ACCENTED) * (1 - _in_runs(sample))


def _russian(sample: bytes, wide: list[str]) -> float:
    small = sum(bool(_CYRILLIC.match(char)) for char in wide) / len(wide)
    return small * _in_runs(sample) if small > 0.6 else 0.0


def _in_runs(sample: bytes) -> float:
    """Share of the high bytes that stand in runs of three and more."""
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", sample)]
    return sum(run for run in runs if run > 2) / max(1, sum(runs))


def _everyday(sample: bytes, family: str) -> float:
    """Share of two-byte characters in the encoding's everyday rows (level one, punctuation)."""
    everyday = total = position = 0
    while position < len(sample) - 1:
        lead, trail = sample[position], sample[position + 1]
        if lead < 0x80:
            position += 1
            continue
        total += 1
        position += 2
        if family == "gb":
            everyday += trail >= 0xA1 and (0xB0 <= lead <= 0xD7 or lead in (0xA1, 0xA3))
        else:
            legal = 0x40 <= trail <= 0x7E or trail >= 0xA1
            everyday += legal and (0xA4 <= lead <= 0xC6 or lead == 0xA1)
    return everyday / total if total else 0.0


_CANDIDATES = {
    "gb18030": _gb,
    "big5hkscs": _big5,
    "cp932": _japanese,
    "euc_jp": _japanese,
    "cp949": _korean,
    "utf-16-le": _utf16,
    "utf-16-be": _utf16,
    "cp1252": _western,
    "cp1251": _russian,
}

"""General vocabulary for the Chinese side of the encoder, where parallel text is technical.

Two files were written for this project, both by a language model without a hand check of each line:
`glossary.tsv` (Chinese words and names with one to three English translations) and `asked.tsv`
(translations of questions of SQuADShifts (CC BY 4.0), DRCD (CC BY-SA 3.0) and CMRC 2018 (CC BY-SA
4.0), by the question's id; share-alike as those are). The glossary
serves three times: as where a token's row starts, as pairs of terms, and to exchange words of
English text for Chinese ones (code-switching, Qin et al. 2020, arXiv:2006.06402): the student reads
the mixed text and shall say what the English encoder says of the original.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.fit._pairs import Pair
from retrieval.text import sentences

FOLDER = Path(__file__).resolve().parent
#: English text whose words are exchanged, and how many characters a stretch of it has.
TEXT = "openstax_ccby standardebooks us_speeches 18f_blog".split()
SHORT, LONG = (40, 240), (240, 600)
#: Words of the longest English translation that is looked for in text.
WIDEST = 4
#: How much less a translation counts than the one before it.
LATER = 0.5
#: Pairs of terms that stand side by side in a batch.
BLOCK = 64

_PIECE = re.compile(r"[A-Za-z]+(?:['’][a-z]+)?|[^A-Za-z]+")
_HAN_GAP = re.compile("(?<=[\u3400-\u9fff，。；：！？]) +(?=[\u3400-\u9fff，。；：！？])")
_STOPS = str.maketrans({",": "，", ".": "。", ";": "；", ":": "：", "?": "？", "!": "！"})
_ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("ied", "y"), ("ed", ""), ("ed", "e"), ("d", ""))
_MORE_ENDINGS = (("ing", ""), ("ing", "e"), ("ly", ""), ("'s", ""), ("’s", ""))
#: Function words, whose glossary entries would be drawn at random; "" stands for nothing.
_FUNCTION = dict(
    pair.split("=")
    for pair in (
        "the= a= an= of=的 to= in=在 on=在 at=在 by=由 for=为 with=与 from=从 as=作为 "
        "into=进入 and=和 or=或 but=但 if=如果 when=当 while=而 because=因为 although=虽然 "
        "is=是 are=是 was=是 were=是 be=是 been= being= has= have= had= do= does= did= "
        "will=会 would=会 can=可以 could=可以 may=可能 might=可能 must=必须 should=应该 "
        "not=不 no=没有 that= which= who= whom= whose= this=这 these=这些 those=那些 it=它 "
        "its=它的 he=他 his=他的 him=他 she=她 her=她的 they=他们 their=他们的 them=他们 "
        "we=我们 our=我们的 us=我们 you=你 your=你的 my=我的 than=比 more=更 most=最 "
        "very=非常 also=也 all=所有 some=一些 many=许多 other=其他 there= about=关于 "
        "through=通过 between=之间 under=在下 over=超过 after=之后 before=之前 during=期间 "
        "both=两者 each=每 every=每 any=任何 only=只 such=这样的 so=所以 then=然后 now=现在 "
        "up= out= off= one=一 two=两 three=三"
    ).split()
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question in both languages, and the passage in `lang` that answers it."""

    en: str
    zh: str
    lang: str
    passage: str


def glossary() -> dict[str, tuple[str, ...]]:
    """Chinese word -> its translations, the most general first."""
    found: dict[str, tuple[str, ...]] = {}
    for line in (FOLDER / "glossary.tsv").read_text(encoding="utf-8").splitlines():
        word, _, meant = line.partition("\t")
        found[word] = tuple(part.strip() for part in meant.split(";"))
    return found


def terms(words: dict[str, tuple[str, ...]]) -> Iterator[Pair]:
    """Each word with each of its translations."""
    both = [(en, zh) for zh, meant in words.items() for en in meant]
    random.Random(0).shuffle(both)
    for number, (en, zh) in enumerate(both):
        yield Pair(en, zh, f"glossary:{number // BLOCK}")


class Switch:
    """Exchanges English words for Chinese ones."""

    def __init__(self, words: dict[str, tuple[str, ...]]) -> None:
        self._chinese: dict[str, list[str]] = defaultdict(list)
        self._weights: dict[str, list[float]] = defaultdict(list)
        for rank, (zh, meant) in enumerate(words.items()):
            # a character alone is rarely the word meant
            usual = (0.3 if len(zh) == 1 else 1.0) / (rank + 500) ** 0.5
            for place, en in enumerate(meant):
                self._chinese[en.lower()].append(zh)
                self._weights[en.lower()].append(usual * LATER**place)

    def __call__(self, text: str, share: float, dice: random.Random) -> str:
        """`text` with about this share of its known words in Chinese."""
        pieces = _PIECE.findall(text)
        out: list[str] = []
        at = 0
        while at < len(pieces):
            piece = pieces[at]
            if not piece[0].isalpha():
                after = bool(out and out[-1]) and "\u3400" <= out[-1][-1] <= "\u9fff"
                out.append(piece.translate(_STOPS) if after and piece[0] in ",.;:?!" else piece)
            elif dice.random() >= share:
                out.append(piece)
            elif (plain := _FUNCTION.get(piece.lower())) is not None:
                out.append(plain)
            else:
                width, word = self._found(pieces, at, dice)
                out.append(word or piece)
                at += 2 * (width - 1)
            at += 1
        return _HAN_GAP.sub("", " ".join("".join(out).split()))

    def _found(self, pieces: Sequence[str], at: int, dice: random.Random) -> tuple[int, str]:
        """(words taken, Chinese for them) of the longest known translation that begins here."""
        for width in range(WIDEST, 0, -1):
            words = pieces[at : at + 2 * width - 1]
            if len(words) == 2 * width - 1 and all(gap == " " for gap in words[1::2]):
                for form in _forms("".join(words).lower()):
                    if form in self._chinese:
                        return width, dice.choices(self._chinese[form], self._weights[form])[0]
        return 1, ""


def _forms(word: str) -> Iterator[str]:
    """The word, then what it may be an inflection of."""
    yield word
    for ending, base in (*_ENDINGS, *_MORE_ENDINGS):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            stem = word[: -len(ending)]
            yield stem + base
            if not base and stem[-1] == stem[-2]:
                yield stem[:-1]


def switched(data: Path, count: int, seed: int) -> Iterator[Pair]:
    """English text and the same with Chinese words; stretches of one document are of one source."""
    switch, dice = Switch(glossary()), random.Random(seed)
    stretches = list(_stretches(data))
    dice.shuffle(stretches)
    for text, source in stretches[:count]:
        # mostly Chinese in the end; few untouched words keep the sense of what is mixed
        mixed = switch(text, dice.choice((0.5, 0.8, 0.95, 1.0)), dice)
        if sum("\u3400" <= c <= "\u9fff" for c in mixed) > 0.15 * len(mixed):
            yield Pair(text, mixed, source)


def _stretches(data: Path) -> Iterator[tuple[str, str]]:
    for name in TEXT:
        with gzip.open(data / "text" / f"en-{name}.txt.gz", "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                yield from _cut(row["text"], f"switched:{row['id']}")
    for row in seen(data / "qa" / "squadshifts" / "new_wiki.jsonl.gz"):
        yield from _cut(row["context"], f"switched:{row['title']}")


def _cut(text: str, source: str) -> Iterator[tuple[str, str]]:
    """Sentences of each paragraph, and the paragraph itself."""
    for line in text.splitlines():
        if LONG[0] <= len(line) <= LONG[1]:
            yield line, source
        for a, b in sentences(line):
            if SHORT[0] <= b - a <= SHORT[1]:
                yield line[a:b].strip(), source


def asked(data: Path) -> list[Asked]:
    """The translated questions, with their passages."""
    known: dict[str, tuple[str, str, str]] = {}
    for lang, name in (
        ("en", "squadshifts/new_wiki"),
        ("zh", "drcd/dev"),
        ("zh", "cmrc2018/trial"),
    ):
        for row in seen(data / "qa" / f"{name}.jsonl.gz"):
            passage = f"{row['title'] or ''}\n{row['context']}"
            known[row["id"]] = (row["question"], lang, passage)
    found = []
    for line in (FOLDER / "asked.tsv").read_text(encoding="utf-8").splitlines():
        key, _, translated = line.partition("\t")
        if key in known:
            question, lang, passage = known[key]
            en, zh = (question, translated) if lang == "en" else (translated, question)
            found.append(Asked(en, zh, lang, passage))
    return found


def seen(path: Path) -> Iterator[dict[str, str]]:
    """Rows to train on; those of a test split are what later parts are fitted on."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row.get("split") != "test":
                yield row


def share(text: str) -> float:
    """A number in [0, 1) that only depends on the text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32

"""What Chinese and English text is made of: language, sentences, search terms, token counts.

One tokenizer serves the lexical index, the query and the sentence ranker, so that a term found by
one is found by all. English: words, lower-cased, Snowball-stemmed. Chinese: folded to simplified
characters, jieba words plus every character bigram (words alone miss names the dictionary does not
know; bigrams alone match across word borders).
"""

from __future__ import annotations

import functools
import re
import threading
import unicodedata
from collections.abc import Iterator
from types import ModuleType
from typing import Any

TERMS_VERSION = "terms-2"

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_HAN_RUN = re.compile(f"[{_HAN}]+")
_WORD = re.compile(rf"[{_HAN}]+|[^\W_{_HAN}]+(?:['’.+#-][^\W_{_HAN}]+)*[+#]*", re.UNICODE)
_LETTER = re.compile(r"[^\W\d_]", re.UNICODE)
#: A key, a hash or packed data: nothing in it is a word.
_PACKED = r"(?=[A-Za-z/+]{0,40}\d[A-Za-z/+]{0,40}\d)[A-Za-z0-9/+]{20,}"
_TOKEN = re.compile(rf"{_PACKED}|[{_HAN}]|\d+|[^\W\d_{_HAN}]+|[^\w\s]|_", re.UNICODE)

_END_ZH = "。！？；…"
_END_EN = ".!?"
_CLOSERS = "\"'”’）)]】》」』"
_OPENERS = " \"'“‘（([【《「『"
_BULLETS = " \t-*+•·>（("
_LIST_NUMBER = re.compile(r"\d{1,3}(?:\.\d{1,3})*")
#: Characters read of a question's beginning, and of its end.
_ASKED = 1_000
#: Characters before a full stop that are looked at: a pasted line of megabytes stays cheap.
_BEFORE = 24
#: Words that are abbreviations only before a number.
_NUMBERING = frozenset({"no", "fig"})
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof sr jr st vs etc eg ie e.g i.e cf al fig no vol pp ed eds inc "
    "ltd co corp jan feb mar apr jun jul aug sep sept oct nov dec u.s u.k u.n d.c "
    "a.m p.m ph.d gen col lt capt sgt rev hon gov sen rep mt ca c approx est dept "
    "univ".split()
)

STOP_EN = frozenset(
    "a an the of to in on at by for from with and or but not is are was were be been "
    "being am do does did doing done have has had having will would can could shall "
    "should may might must i you he she it we they me him her us them my your his "
    "its our their this that these those there here what which who whom whose when "
    "where why how as if then than so such into about over under up down out off "
    "again also just very please tell s t re ve ll d m".split()
)
STOP_ZH = frozenset(
    "的 了 在 是 我 你 他 她 它 们 和 与 或 及 而 也 都 就 但 吗 呢 吧 "
    "啊 呀 么 什么 怎么 怎样 如何 哪 哪个 哪些 哪里 哪儿 谁 几 多少 为什么 "
    "为何 何 请 请问 告诉 一下 一个 这 那 这个 那个 这些 那些 有 被 把 对 "
    "于 从 到 以 为 之 其 并 等 中 上 下 里 是否 可以 能 能否 会 要 我们 "
    "你们 他们 是什么 什 么样 何时 何地 何年 何处 何人 哪一 哪一年 哪年 甚么 "
    "为甚么 由 时 当时 称为 叫 叫做".split()
)


def language(text: str) -> str:
    """Say whether `text` is "zh" or "en" by its script: Chinese once a fifth of letters are Han.

    Text without letters counts as "en". Chinese counts characters where English counts words, so
    letters of Latin words weigh a fifth.
    """
    han = sum(len(run) for run in _HAN_RUN.findall(text))
    if not han:
        return "en"
    latin = len(_LETTER.findall(text)) - han
    return "zh" if han >= latin / 5 else "en"


def simplified(text: str) -> str:
    """Fold traditional Chinese characters to simplified ones; other text stays as it is."""
    return str(_converter().convert(text)) if _HAN_RUN.search(text) else text


def is_han(text: str) -> bool:
    """Whether `text` has a Chinese character."""
    return _HAN_RUN.search(text) is not None


def count_tokens(text: str) -> int:
    """Estimate WordPiece tokens by the shape of each word; a Han character or mark is one.

    The parts of a text count no less than the whole (packed data aside), so that chunks may be
    packed by adding up.

    Measured against the encoder's own count (mean ratio real / estimate, stretches of 600
    characters): see LOG.md. A tokenizer with words of Chinese needs fewer than one a character;
    the estimate keeps to one, so that a chunk fits the encoder with them and without.
    """
    return sum(map(_pieces, _TOKEN.findall(text)))


@functools.lru_cache(maxsize=65_536)
def _pieces(token: str) -> int:
    """Pieces of one word: common words are whole, others fall into pieces of a few letters."""
    size = len(token)
    if not token.isascii():
        return 1 if size == 1 else size if max(token) > "\u024f" else (size + 1) // 2
    if token.isdigit():
        return 1 if size <= 4 else (size + 1) // 2
    if not token.isalpha():
        return (2 * size + 2) // 3
    if token[1:].islower() or size == 1:
        return 1 if size <= 8 else 2 if size <= 13 else (size + 3) // 4
    return 2 if 2 < size < 10 and token.isupper() else 1 + size // 4


def terms(text: str) -> list[str]:
    """Search terms of `text` in order, repeats and stop words kept; see also `query_terms`."""
    found: list[str] = []
    folded = simplified(unicodedata.normalize("NFKC", text)).lower()
    for match in _WORD.finditer(folded):
        word = match.group()
        if _HAN_RUN.match(word):
            found.extend(_han_terms(word))
        else:
            found.extend(_latin_terms(word))
    return found


def query_terms(text: str, limit: int = 48) -> list[str]:
    """Distinct terms of a question without stop words; all of them where nothing else is left.

    At most `limit`, first come first kept. Of a long paste only the beginning and the end are
    read, where a question stands: it must not make a search slow.
    """
    asked = _both_ends(text)
    return list(dict.fromkeys(_topic_terms(asked) or terms(asked)))[:limit]


def is_hollow(text: str) -> bool:
    """Whether a question has nothing but stop words: "who is it", 这是什么."""
    return not _topic_terms(_both_ends(text))


def _both_ends(text: str) -> str:
    return text if len(text) <= 2 * _ASKED else f"{text[:_ASKED]} {text[-_ASKED:]}"


def _topic_terms(text: str) -> list[str]:
    folded = simplified(unicodedata.normalize("NFKC", text)).lower()
    kept: list[str] = []
    for match in _WORD.finditer(folded):
        word = match.group()
        if _HAN_RUN.match(word):
            for run in _topic_runs(word):
                kept.extend(t for t in _han_terms(run) if t not in STOP_ZH)
        else:
            kept.extend(t for t in _latin_terms(word) if t not in STOP_EN)
    return kept


def content_words(text: str) -> list[str]:
    """Words of `text` as written, without stop words and repeats: what it is about."""
    found: list[str] = []
    for match in _WORD.finditer(text):
        word = match.group()
        if _HAN_RUN.match(word):
            found.extend(_han_words(word))
        elif word.lower() not in STOP_EN:
            found.append(word)
    return list(dict.fromkeys(found))


def is_stop(term: str) -> bool:
    """Whether a term says nothing about the topic."""
    return term in STOP_EN or term in STOP_ZH


def sentences(text: str) -> list[tuple[int, int]]:
    """Split into sentences: offsets [start, end) without surrounding white space.

    A line break ends a sentence (parsers join wrapped lines); so do 。！？；… and . ! ? before
    white space, unless after an abbreviation, an initial or a list number. Closing quotes and
    brackets stay with their sentence.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for end in _ends(text):
        left, right = start, end
        while left < right and text[left].isspace():
            left += 1
        while right > left and text[right - 1].isspace():
            right -= 1
        if left < right:
            spans.append((left, right))
        start = end
    return spans


def _ends(text: str) -> Iterator[int]:
    i, size = 0, len(text)
    while i < size:
        char = text[i]
        i += 1
        if char == "\n":
            yield i
            continue
        if char not in _END_ZH and char not in _END_EN:
            continue
        first = i - 1
        while i < size and (text[i] in _END_ZH or text[i] in _END_EN):
            i += 1
        while i < size and text[i] in _CLOSERS:
            i += 1
        if any(c in _END_ZH for c in text[first:i]) or _ends_english(text, first, i):
            yield i
    yield size


def _ends_english(text: str, mark: int, after: int) -> bool:
    if after < len(text) and not text[after].isspace():
        return _HAN_RUN.match(text[after]) is not None and text[mark] in "!?"
    if text[mark] != ".":
        return True
    first = max(0, mark - _BEFORE)
    word = re.search(r"[^\s(\[\"'“‘（]*$", text[first:mark])
    before = word.group().lower() if word else ""
    if _LIST_NUMBER.fullmatch(before):
        line = text.rfind("\n", first, mark) + 1 or first
        head = text[line : mark - len(before)].rstrip(_BULLETS)
        opens = not head or head[-1] in _END_ZH + _END_EN + ":："
        return not opens and _starts_sentence(text, after)
    if before in _NUMBERING:
        return not text[after : after + 2].strip()[:1].isdigit()
    return before not in _ABBREVIATIONS and not re.fullmatch(r"[a-z]", before)


def _starts_sentence(text: str, after: int) -> bool:
    rest = text[after : after + 4].lstrip(_OPENERS)
    return bool(rest) and (rest[0].isupper() or _HAN_RUN.match(rest[0]) is not None)


def _latin_terms(word: str) -> list[str]:
    word = word.replace("’", "'").removesuffix("'s").strip("'.-")
    if not word:
        return []
    whole = _stem(word)
    parts = [p for p in re.split(r"['.+#-]+", word) if p]
    if len(parts) < 2:
        return [whole]
    return [word, *(_stem(p) for p in parts)]


def _han_words(run: str) -> list[str]:
    """Words of a run of Han characters as written; the dictionary knows simplified ones only."""
    folded, start, words = simplified(run), 0, []
    if len(folded) != len(run):
        folded = run
    for word in _cut(folded):
        if word not in STOP_ZH:
            words.append(run[start : start + len(word)])
        start += len(word)
    return words


def _han_terms(run: str) -> list[str]:
    words = [w for w in _cut(run) if w]
    bigrams = [run[i : i + 2] for i in range(len(run) - 1)]
    known = set(bigrams)
    return [w for w in words if w not in known] + bigrams


def _topic_runs(run: str) -> list[str]:
    """Cut a run of Han characters at its stop words, so that no bigram reaches across one."""
    runs = [""]
    for word in _cut(run):
        if word in STOP_ZH:
            runs.append("")
        else:
            runs[-1] += word
    return [r for r in runs if r]


_STEMMING = threading.Lock()


@functools.lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    """Stop words stay as they are, so that `is_stop` knows them."""
    if word in STOP_EN or not word.isascii():
        return word
    with _STEMMING:  # the stemmer keeps the word it is at work on
        return str(_stemmer().stemWord(word))


# The dictionaries are loaded at first use: `import assistant` does without them.


def _cut(run: str) -> list[str]:
    return list(_segmenter().cut(run))


@functools.cache
def _segmenter() -> ModuleType:
    import rjieba

    return rjieba


@functools.cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


@functools.cache
def _converter() -> Any:
    import opencc

    return opencc.OpenCC("t2s")

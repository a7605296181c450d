from __future__ import annotations

import functools
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from retrieval import text
from retrieval.chunk import chunk
from retrieval.config import ChunkSettings, ParseSettings
from retrieval.embed._weights import packaged
from retrieval.parse import markdown
from retrieval.text import (
    content_words,
    count_tokens,
    is_han,
    is_stop,
    language,
    query_terms,
    sentences,
    simplified,
    terms,
)

MIXED = st.text(
    st.one_of(
        st.sampled_from("。！？；…，.!?,;:\"'”’）)]」 \n\t1234567890"),
        st.sampled_from("的是北京大学下载安装包什么"),
        st.sampled_from("abcDEF MrDr"),
        st.characters(codec="utf-8"),
    ),
    max_size=80,
)

#: Sentences separated by a bar; the bar itself is not part of the text.
SENTENCES = (
    "It rains.| We stay home.",
    "Dr. Smith met Mrs. Jones.| They left.",
    "He lives on Oak St. with Prof. Lee.",
    "See e.g. the manual, i.e. chapter two.",
    "Pick one, etc. and go on.",
    "J. R. R. Tolkien wrote it.| It sold well.",
    "Read George W. Bush vs. Gore.",
    "Pi is 3.14 and e is 2.718.| Both are irrational.",
    "Python 3.11 came first.| Version 3.12.| Then 3.13.",
    "It costs $1.50.| Buy it.",
    "See fig. 3 and vol. 2.",
    "Fig. 4 shows it.| No. 5 does not.",
    "He said no.| Then he left.",
    "Meet at 5 p.m. on Monday.",
    "The U.S. economy grew.",
    "1. Download the package.| Run it.",
    "1. 下载安装包",
    "2. 双击运行。| 3. 重启电脑。",
    "12. Twelfth item",
    "1.2. Nested item",
    "- 3. Item in a list",
    "1) First| \n2) Second",
    "The answer is 42.| Nobody knows why.",
    "It was 1990.| It rained.",
    "“Is it?”| she asked.",
    "He said: “It works.”| Then he left.",
    "(It works.)| Then he left.",
    "[See below.]| More.",
    "What?!| Really!!| Yes.",
    "Wait...| What?",
    "Is it so?|\nYes",
    "no end here",
    "今天下雨。|我们回家！|好吗？|好",
    "他说：“今天下雨。”|然后走了。",
    "（见下文。）|后来呢？",
    "「好的。」|她说。",
    "第一点；|第二点；|第三点。",
    "等等……|后来呢",
    "真的？！|“好”",
    "真的?！|“好”",
    "好吗?|好!|走",
    "圆周率是3.14。|约等于22/7。",
    "请用 Python 3.11 运行。| See README.md first.| 谢谢！",
    "访问 https://example.org/?q=1 查看。",
    "第一行|\n第二行",
    "One|\n\nTwo|\r\nThree",
)


@pytest.mark.parametrize("marked", SENTENCES)
def test_sentence_ends(marked: str) -> None:
    """Sentences end where a reader sees an end, in Chinese and in English."""
    text = marked.replace("|", "")
    assert [text[a:b] for a, b in sentences(text)] == [part.strip() for part in marked.split("|")]


@given(MIXED)
def test_sentences_cover_the_text(text: str) -> None:
    """Sentences are ordered, disjoint, stripped, never empty, and hold all but white space."""
    spans = sentences(text)
    flat = [edge for span in spans for edge in span]
    assert flat == sorted(flat)
    assert all(text[a:b] == text[a:b].strip() != "" for a, b in spans)
    outside = set(range(len(text))) - {i for a, b in spans for i in range(a, b)}
    assert "".join(text[i] for i in sorted(outside)).strip() == ""


@given(st.lists(st.sampled_from(["今天下雨。", "It rains. ", "好吗？", "Is it? ", "Yes! "])))
def test_whole_sentences_split_one_by_one(parts: list[str]) -> None:
    """Whole sentences set side by side come apart again as they were."""
    text = "".join(parts)
    assert [text[a:b] for a, b in sentences(text)] == [part.strip() for part in parts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "en"),
        ("12345 !?", "en"),
        ("How do I install it?", "en"),
        ("如何安装？", "zh"),
        ("如何使用 Docker 部署应用", "zh"),
        ("Docker 部署", "zh"),
        ("What does 你好 mean in English?", "en"),
        ("The word 茶 is the origin of tea in many languages.", "en"),
        ("Kubernetes Ingress 配置 TLS 证书", "zh"),
        ("怎樣安裝", "zh"),
        ("¿Dónde está?", "en"),
        ("𠮷野家", "zh"),
    ],
)
def test_language_of_mixed_text(text: str, expected: str) -> None:
    """Text is Chinese once a fifth of its letters are; without letters it is English."""
    assert language(text) == expected


@pytest.mark.parametrize(
    ("traditional", "simple"),
    [
        ("頭髮與發展", "头发与发展"),
        ("資料庫系統設計", "资料库系统设计"),
        ("臺灣的電腦網路", "台湾的电脑网路"),
        ("機器學習與神經網絡", "机器学习与神经网络"),
        ("國際貨幣基金組織", "国际货币基金组织"),
        ("憂鬱的烏龜 v2.0", "忧郁的乌龟 v2.0"),
        ("Docker 容器編排", "Docker 容器编排"),
    ],
)
def test_traditional_terms_are_simplified_terms(traditional: str, simple: str) -> None:
    """The same words in traditional and in simplified characters give the same terms."""
    assert (terms(traditional), query_terms(traditional)) == (terms(simple), query_terms(simple))
    assert simplified(traditional) == simple


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Installing packages", ["instal", "packag"]),
        ("C++ and C#", ["c++", "and", "c#"]),
        ("node.js", ["node.js", "node", "js"]),
        ("Python 3.11", ["python", "3.11", "3", "11"]),
        ("user's guide", ["user", "guid"]),
        ("ＡＢＣ１２３", ["abc123"]),
        ("北京大学", ["北京大学", "北京", "京大", "大学"]),
        ("猫", ["猫"]),
        ("", []),
        ("?!。", []),
    ],
)
def test_terms_table(text: str, expected: list[str]) -> None:
    """English gives stems and parts of compounds, Chinese words and bigrams."""
    assert sorted(terms(text)) == sorted(expected)


@given(MIXED)
def test_query_terms_say_something(text: str) -> None:
    """A question's terms are distinct and no stop words, or all terms where nothing is left."""
    found = query_terms(text, limit=10_000)
    assert len(found) == len(set(found))
    if any(is_stop(term) for term in found):
        assert found == list(dict.fromkeys(terms(text)))


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Why does this very thing please him?", ["thing"]),
        ("What is it?", ["what", "is", "it"]),
        ("怎么安装", ["安装"]),
        ("请问什么是光合作用？", ["光合作用", "光合", "合作", "作用"]),
        ("什么", ["什么"]),
        ("John Doe", ["john", "doe"]),
        ("", []),
    ],
)
def test_query_terms_table(question: str, expected: list[str]) -> None:
    """What a question is about is left, stop words are not."""
    assert query_terms(question) == expected


@given(st.integers(1, 60), st.integers(0, 200))
def test_query_terms_are_capped(limit: int, words: int) -> None:
    """At most `limit` terms are kept, the first ones."""
    text = " ".join(f"w{i}" for i in range(words))
    assert query_terms(text, limit) == [f"w{i}" for i in range(min(limit, words))]


@given(st.text(st.sampled_from("北京大学光合作用张予曦数据库"), min_size=2, max_size=12), st.data())
def test_any_stretch_of_chinese_is_found(text: str, data: st.DataObject) -> None:
    """Every bigram of a text is one of its terms, whatever the dictionary knows."""
    start = data.draw(st.integers(0, len(text) - 2))
    assert text[start : start + 2] in terms(text)


def test_content_words_are_as_written() -> None:
    """Content words keep their case and script and leave stop words out."""
    assert content_words("How do I install Docker on 臺灣 的 Linux? Docker!") == [
        "install",
        "Docker",
        "臺灣",
        "Linux",
    ]


def test_is_han() -> None:
    """A Chinese character counts, kana and Latin do not."""
    assert [is_han(t) for t in ("a中", "𠮷", "abc", "カナ", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@functools.cache
def _tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(str(packaged()), local_files_only=True)


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over the lazy dog while the farmer is asleep in the barn.",
        "To install the package, download the archive, unpack it and run the setup program. "
        "If the installation fails, check that you have enough disk space and try again.",
        "Set `batch_size` to 32 (the default) and run `python app.py ingest docs/` again; every "
        "file that changed since the last run is read, and the others are left as they are.",
        "In 1990, about 3.5 million people (12 % of the population) lived in 24 cities.",
        "下载安装包后，双击运行，然后按照提示完成安装。如果安装失败，请检查磁盘空间是否足够。",
        "国际货币基金组织成立于一九四五年，总部设在华盛顿，目前共有一百九十个成员国。",
        "请先安装 Docker，再运行 docker compose up 启动服务。",
        "def count(self, items: list[int]) -> int:\n    return sum(len(i) for i in items if i > 0)",
        "sha256 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db is its hash",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9 eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4",
    ],
)
def test_token_counts_are_close(text: str) -> None:
    """The estimate is within a quarter of what the encoder's own tokenizer counts."""
    real = len(_tokenizer().encode(text, add_special_tokens=False))
    assert count_tokens(text) == pytest.approx(real, rel=0.25)


@pytest.mark.parametrize("folder", ["docs/en", "docs/zh"])
def test_no_chunk_is_cut_by_the_encoder(folder: str, root: Path) -> None:
    """Heading path and text of every chunk of the guide fit the encoder's 256 tokens."""
    for page in sorted((root / folder).glob("*.md")):
        parsed = markdown.parse(page, ParseSettings())
        for piece in chunk(parsed, ChunkSettings()):
            path = " › ".join((parsed.title, *piece.headings))
            text = f"{path}\n{parsed.text[piece.start : piece.end]}"
            assert len(_tokenizer().encode(text)) <= 256, text


@pytest.mark.parametrize("text", ["a/" * 100_000, "a" * 200_000, "1a" * 100_000, "+" * 200_000])
def test_counting_is_linear(text: str) -> None:
    """A file without spaces is counted in one pass."""
    assert count_tokens(text) >= len(text) // 8


def test_threads_share_the_stemmer() -> None:
    """Words stemmed by several threads at once get the stems that one thread gives them."""
    words = [f"{a}{b}ations" for a in "bcdfghklmnprst" for b in ("elev", "imit", "oper", "un")]
    alone = [terms(word) for word in words]
    pause = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            text._stem.cache_clear()
            with ThreadPoolExecutor(4) as pool:
                assert list(pool.map(terms, words)) == alone
    finally:
        sys.setswitchinterval(pause)

from __future__ import annotations

import ast
import re
from pathlib import Path

from assistant.ui import (
    render_chat,
    render_panel,
    strings,
    strings_en,
    strings_train_en,
    strings_train_zh,
    strings_zh,
)
from retrieval import knowledge
from retrieval.parse.base import REASONS
from retrieval.sources import base
from safety.schema import SEVERITY

UI = Path(strings.__file__).parent
ENGLISH, CHINESE = strings.TABLES["en"], strings.TABLES["zh"]
_FIELD = re.compile(r"{(\w+)}")


def test_no_key_is_written_twice() -> None:
    """The chat's tables and those of the page on training share no key."""
    assert not strings_en.ENGLISH.keys() & strings_train_en.ENGLISH.keys()
    assert not strings_zh.CHINESE.keys() & strings_train_zh.CHINESE.keys()


def test_both_languages_say_the_same_things() -> None:
    """Equal keys, equal placeholders, nothing empty."""
    assert ENGLISH.keys() == CHINESE.keys()
    for key, words in ENGLISH.items():
        assert words.strip(), key
        assert CHINESE[key].strip(), key
        assert set(_FIELD.findall(words)) == set(_FIELD.findall(CHINESE[key])), key


def test_each_language_is_written_in_itself() -> None:
    """The Chinese table holds Chinese, the English one none."""
    chinese = re.compile(r"[\u4e00-\u9fff]")
    assert not [key for key, words in ENGLISH.items() if chinese.search(words)]
    unwritten = [k for k, w in CHINESE.items() if not chinese.search(w)]
    assert not unwritten


def test_every_key_named_in_the_source_exists() -> None:
    """A literal key given to `say` or `count` is in the table."""
    named = set()
    for file in UI.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("say", "count")
                and len(node.args) > 1
                and isinstance(node.args[1], ast.Constant)
            ):
                named.add(str(node.args[1].value))
    assert named
    assert named <= ENGLISH.keys()


def test_every_code_has_words() -> None:
    """Reasons of parsers, actions of the guard and tags of feedback are all translated."""
    for reason in (*REASONS, *base.REASONS):
        assert f"file_{reason}" in ENGLISH
        assert f"remedy_{reason}" in ENGLISH
    assert all(f"action_{action}" in ENGLISH for action in SEVERITY)
    assert all(f"reason_{tag}" in ENGLISH for tag in render_chat.REASONS)


def test_uploads_are_known_by_the_name_retrieval_gives_them() -> None:
    """The root of uploads is called the same on both sides."""
    assert render_panel.UPLOADS == knowledge.UPLOADS


def test_the_language_is_the_users_choice_then_the_setting_then_the_browsers() -> None:
    """Each source is asked in turn; English where nobody says anything."""
    assert strings.pick("en", "zh", "en") == "zh"
    assert strings.pick("zh", "", "en") == "zh"
    assert strings.pick("auto", "", "zh-CN,zh;q=0.9") == "zh"
    assert strings.pick("auto", "", "de, en;q=0.5, zh;q=0.4") == "en"
    assert strings.pick("auto", "xx", "fr") == "en"


def test_times_are_said_in_the_language() -> None:
    """Ages up to a month, dates beyond, in both languages."""
    now = 2_000_000_000.0
    assert strings.ago("en", now - 10, now) == "just now"
    assert strings.ago("en", now - 60, now) == "1 minute ago"
    assert strings.ago("zh", now - 7200, now) == "2 小时前"
    assert strings.ago("en", now - 86_400, now) == "yesterday"
    assert "年" in strings.ago("zh", now - 90 * 86_400, now)
    assert strings.ago("en", 0, now) == "never"
    assert strings.span("en", 0.0123) == "12 ms"
    assert strings.span("zh", 200) == "3 分钟"

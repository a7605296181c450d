from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

import app
from assistant.config import load
from retrieval.text import sentences

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = ("en", "zh")
NAMES = sorted(p.name for p in (ROOT / "docs" / "en").glob("*.md"))
PAGES = sorted((ROOT / "docs").rglob("*.md"))
OPENERS = ("It ", "This ", "That ", "They ", "These ", "它", "这", "该")


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```\n", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def settings(model: BaseModel, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield each setting's dotted key and its value."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from settings(value, f"{path}{name}.")
        else:
            yield path + name, value


def toml(value: object) -> str:
    """Write a value as a settings file would."""
    if isinstance(value, SecretStr):
        return toml(value.get_secret_value())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    return repr(value)


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of a parser, each with its own parser."""
    return {
        name: below
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, below in action.choices.items()
    }


def test_both_languages_have_the_same_pages() -> None:
    """A page exists in both languages or in none."""
    assert [p.name for p in sorted((ROOT / "docs" / "zh").glob("*.md"))] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_structure(name: str) -> None:
    """A page has the same headings, at the same levels, and as many lines, in both languages."""
    shapes = []
    for language in LANGUAGES:
        lines = prose(ROOT / "docs" / language / name).splitlines()
        shapes.append([re.match(r"#*", line)[0] for line in lines])  # type: ignore[index]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_setting_is_documented_with_its_default(language: str) -> None:
    """The tables of configuration.md hold every setting with its value at the start, no others."""
    page = (ROOT / "docs" / language / "configuration.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([\w.]+)` \| `([^`]*)` \| \S.* \|$", page, flags=re.M)
    assert sorted(documented) == sorted((key, toml(value)) for key, value in settings(load()))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_setting_named_exists(page: Path) -> None:
    """A setting that a page names, or sets in an example, can be set."""
    known = {key for key, _ in settings(load())}
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"--set ([a-z_]+(?:\.[a-z_]+)*)=", text))
    sections = "retrieval|safety|policy|memory|serve"
    named |= {key for key in re.findall(rf"`((?:{sections})\.[a-z_.]+)(?:=[^`]*)?`", text)}
    named |= {
        variable.lower().replace("__", ".")
        for variable in re.findall(r"`PLUMBLINE_([A-Z_]+[A-Z])(?:=[^`]*)?`", text)
    }
    assert named <= known, f"unknown: {sorted(named - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_command_named_exists(page: Path) -> None:
    """A command that a page names, and each of its options, is one of app.py's."""
    parser = app.build_parser()
    known = commands(parser)
    for line in re.findall(r"python app\.py([^`\n]*)", page.read_text(encoding="utf-8")):
        words = re.findall(r'"[^"]*"|\S+', line)
        names = [w for w in words if w in known]
        first = next((w for w in words if re.fullmatch(r"[a-z-]*[a-z]", w)), "")
        if words and not words[0].startswith(("-", "…")):
            assert first in known, f"no command {first!r} in: python app.py{line}"
        inner = known[names[0]] if names else parser
        options = {*parser._option_string_actions, *inner._option_string_actions}
        for below in commands(inner).values():
            options |= below._option_string_actions.keys()
        unknown = {w for w in words if w.startswith("--")} - options
        assert not unknown, f"no option {unknown} in: python app.py{line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_no_dead_links(page: Path) -> None:
    """A relative link leads to a file that exists."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_sentence_stands_alone(page: Path) -> None:
    """A line is one whole sentence that can be quoted as an answer: no pronoun opens it."""
    for line in prose(page).splitlines():
        if not line or line[0] in "#|-" or line[0].isdigit():
            continue
        read = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line.replace("`", ""))
        assert not read.startswith(OPENERS), line
        assert read[-1] in ".。", line
        assert sentences(read) == [(0, len(read))], line


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_example_in_python_runs(language: str, tmp_path: Path) -> None:
    """The program of the guide runs as printed, and its answer has a citation."""
    page = (ROOT / "docs" / language / "embedding-in-python.md").read_text(encoding="utf-8")
    program = re.search(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    assert program is not None
    done = subprocess.run(
        [sys.executable, "-c", program[1]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\[1\] .*adding-documents\.md: ", done.stdout, flags=re.M), done.stdout


def test_the_changelog_tells_of_this_version() -> None:
    """The newest entry of the changelog is the version that is built."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"', project, flags=re.M)
    newest = re.search(r"^## \[(.+?)\]", changelog, flags=re.M)
    assert version is not None
    assert newest is not None
    assert version[1] == newest[1]

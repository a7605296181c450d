from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.config import ParseSettings
from retrieval.errors import ParseError
from retrieval.parse import markdown
from retrieval.schema import Parsed

SETTINGS = ParseSettings()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Name the Markdown file that a test writes."""
    return tmp_path / "page.md"


def read(page: Path, source: str) -> Parsed:
    """Parse Markdown given as a string."""
    page.write_text(source, encoding="utf-8")
    return markdown.parse(page, SETTINGS)


def kinds(parsed: Parsed) -> list[tuple[str, str]]:
    """Return every block as (kind, text)."""
    return [(b.kind, parsed.text[b.start : b.end]) for b in parsed.blocks]


def test_structure_of_a_chinese_document(page: Path) -> None:
    """Headings, lists, quotes, tables and code keep their kinds, and no markup stays."""
    parsed = read(
        page,
        "# 快速 *上手* {#quick}\n\n第一行\n第二行 **粗体**，见[文档](http://x.y)。\n\n"
        "1. 下载\n2. 安装\n   - 嵌套\n\n> 引用\n\n| 名 | 值 |\n|---|---|\n| `a` | 甲<br>乙 |\n\n"
        "```js\nlet x = 1\n\n  y\n```\n",
    )
    assert [(h.level, h.text) for h in parsed.headings] == [(1, "快速 上手")]
    assert kinds(parsed) == [
        ("paragraph", "第一行第二行 粗体，见文档。"),
        ("list_item", "1. 下载"),
        ("list_item", "2. 安装"),
        ("list_item", "嵌套"),
        ("quote", "引用"),
        ("table_row", "名：a；值：甲乙"),
        ("code", "let x = 1\n\n  y"),
    ]
    assert parsed.title == "快速 上手"


def test_front_matter_gives_the_title_and_no_text(page: Path) -> None:
    """YAML and TOML front matter are not text, but their title is the title."""
    assert read(page, '---\ntitle: "甲: 乙"\ntags: [a]\n---\n# H\n\ntext').title == "甲: 乙"
    parsed = read(page, "+++\ntitle = 'Hugo'\n+++\n\ntext")
    assert (parsed.title, parsed.text) == ("Hugo", "text")


@pytest.mark.parametrize(
    "source",
    [
        "<!-- gone -->",
        "<!-- gone\n\nover lines\n-->",
        "<script setup>\nimport X from './x'\n\nconst gone = 1\n</script>",
        "<style>\n.gone {}\n</style>",
        "{/* gone */}",
        "{% comment %}\ngone\n{% endcomment %}",
        '{{< copyable "gone" >}}',
        '{% include "gone.html" %}',
        "import Gone from '@theme/Tabs';\nimport Other from './gone';",
        "export const gone = {\n  a: 1,\n}",
        "<Tabs\n  groupId='gone'\n  values={[\n    {label: 'gone', value: 'gone'},\n  ]}>",
        '<TabItem value="gone">',
        '<img src="gone" style={{width: "70%"}} />',
        "::: tip {gone=1}",
        ":::",
        "[[toc]]",
        "[gone]: http://gone",
        "{: .gone}",
    ],
)
def test_what_generators_add_is_not_text(page: Path, source: str) -> None:
    """Comments, scripts, components, containers and template tags leave nothing behind."""
    assert read(page, f"before\n\n{source}\n\nafter").text == "before\n\nafter"


def test_code_is_left_as_it_is(page: Path) -> None:
    """Inside code, what would be a generator's notation elsewhere is content."""
    source = '{{< x >}}\n::: tip\n<!-- c -->\n{% raw %}\n<Tabs>\nimport a from "b"'
    assert kinds(read(page, f"````md\n{source}\n````")) == [("code", source)]
    assert read(page, "Write `{% raw %}` or `<!-- c -->` or `{{{ .x }}}`.").text == (
        "Write {% raw %} or <!-- c --> or {{{ .x }}}."
    )


def test_containers_keep_their_captions_and_contents(page: Path) -> None:
    """The fence of a container goes; what its author wrote in it stays."""
    parsed = read(page, "::: warning 注意事项\n内容\n:::\n\n:::note[Read me]\n\ntext\n\n:::")
    assert [text for _, text in kinds(parsed)] == ["注意事项", "内容", "Read me", "text"]
    parsed = read(page, '!!! note "Title"\n    body **b**\n\n    more\n\nafter')
    assert [text for _, text in kinds(parsed)] == ["Title", "body b", "more", "after"]


def test_raw_html_gives_its_text(page: Path) -> None:
    """Tables and summaries written in HTML are read; tags around Markdown vanish."""
    parsed = read(
        page,
        "<details>\n<summary>为什么</summary>\n\n因为 **快**。\n\n</details>\n\n"
        "<table><tr><td>甲</td><td>1</td></tr></table>\n\n"
        '<div class="a">\n  <div class="b">\n    indented *text*\n  </div>\n</div>\n',
    )
    assert kinds(parsed) == [
        ("paragraph", "为什么"),
        ("paragraph", "因为 快。"),
        ("table_row", "甲 | 1"),
        ("paragraph", "indented text"),
    ]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("![替代文字](a.png)", "替代文字"),
        ("a&nbsp;b &amp; c", "a b & c"),
        ("支持迁移**所有**行，**高可用。**支持", "支持迁移所有行，高可用。支持"),
        ("请**_先不要_**用", "请先不要用"),
        ("claim[^1].\n\n[^1]: the note", "claim.\n\nthe note"),
        ("claim[^1].\n\nnext\n\n[^1]: word", "claim.\n\nword\n\nnext"),
        (
            "claim[^1].\n\nnext\n\n[^1]: the note\n    goes on\n\nlast",
            "claim.\n\nthe note goes on\n\nnext\n\nlast",
        ),
        ("`[^1]` stays\n\n[^1]: uncited", "[^1] stays"),
        ("see^[an aside] this", "see (an aside) this"),
        ("Sign in to [!INCLUDE [azure_portal](../a.md)].", "Sign in to azure portal."),
        ("before\n\n[!INCLUDE [gone](../a.md)]", "before"),
        ('> [!div class="checklist"]\n> * one', "one"),
        ("术语\n: 它的意思", "术语：它的意思"),
        ("# A {#x .y}\n\nsaid *so*", "A\n\nsaid so"),
        ('[text](http://x.y "a title")', "text"),
        ("> [!NOTE]\n> careful", "careful"),
        ("- [x] done", "done"),
        ('see [page]({% page "/a/b" %}) now', "see page now"),
        ("see [page][p] now\n\n[p]: {% page '/a' %}", "see page now"),
        ('ask in {% slack_channel "help" %} first', "ask in help first"),
        ("点击 {{{ .starter }}} 实例", "点击 starter 实例"),
        ("use <span class='a'>data</span><span class='b'>reactive</span>", "use data / reactive"),
        ("# v-memo <sup class='vt-badge' data-text='3.2+' />", "v-memo"),
        ("`a|b` and `Map<T>`", "a|b and Map<T>"),
        ("line one  \nline two", "line one\nline two"),
        ("zero\u200bwidth", "zerowidth"),
    ],
)
def test_a_reader_sees_only_words(page: Path, source: str, text: str) -> None:
    """Inline notation becomes what a reader of the page would see."""
    assert read(page, source).text == text


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("| a | b |\n|---|---|\n| `x\\|y` | 1<br/>2 |", ["a: x|y; b: 1 2"]),
        ("a | b\n--- | --- | ---\n1 | 2", ["a: 1; b: 2"]),
        ("|---|---|\n|TO:|me|\n|FROM:|you|", ["TO: | me", "FROM: | you"]),
        ("|only a picture|", ["only a picture"]),
        ("| h | i |\n|---|---|", ["h | i"]),
        ("|   | v1 |\n|---|---|\n| speed | 3 |", ["speed; v1: 3"]),
        ("|a|b|\n|-|-|\n|x[^1]|y|\n\n[^1]: note", ["a: x; b: y"]),
    ],
)
def test_a_row_says_what_its_cells_are(page: Path, source: str, rows: list[str]) -> None:
    """Each row of a table, even of a damaged one, names its columns."""
    found = [text for kind, text in kinds(read(page, source)) if kind == "table_row"]
    assert found == rows


def test_tabs_and_cards_keep_their_labels(page: Path) -> None:
    """What a tab is called stands before what it holds, in every generator's notation."""
    source = (
        '<Tabs>\n<TabItem value="l" label="Linux">\n\nrun\n\n</TabItem>\n</Tabs>\n\n'
        '<div label="通过 SQL">\n\n执行\n\n</div>\n\n@tab:active Docker#x\n\npull\n'
    )
    assert [text for _, text in kinds(read(page, source))] == [
        *("Linux", "run", "通过 SQL", "执行", "Docker", "pull"),
    ]


def test_a_page_without_words_is_empty(page: Path) -> None:
    """Front matter and components alone are no text."""
    with pytest.raises(ParseError) as caught:
        read(page, "---\ntitle: x\n---\n\n<Home />\n")
    assert caught.value.reason == "empty"

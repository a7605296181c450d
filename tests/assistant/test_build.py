from __future__ import annotations

from pathlib import Path

import pytest

from assistant.build import DOCS, build_assistant
from assistant.config import Settings, load
from assistant.errors import BackendMissing
from assistant.schema import Feedback, TurnRecord
from retrieval.errors import BackendMissing as NoBackend
from safety.errors import SafetyError


def settings(home: Path, **more: str) -> Settings:
    """Read settings of a small assistant."""
    small = {
        "home": str(home),
        "docs": "false",
        "retrieval.embed.backend": "hashing",
        "policy.backend": "echo",
    }
    return load(overrides=small | {key.replace("__", "."): value for key, value in more.items()})


def test_everything_lies_under_home(tmp_path: Path) -> None:
    """Databases and logs are made in the folder of the settings and nowhere else."""
    home = tmp_path / "deep" / "home"
    before = set(tmp_path.iterdir())
    with build_assistant(settings(home)) as assistant:
        assistant.reply("hello")
        where = assistant.health().data_dir
    new = {path.name for path in set(tmp_path.iterdir()) - before}
    found = {"knowledge.db", "conversations.db"} <= {path.name for path in home.iterdir()}
    assert (new, found, where) == ({"deep"}, True, str(home))


def test_turns_and_thumbs_are_handed_out(tmp_path: Path) -> None:
    """The callables get every finished turn and every thumb; nothing else wires feedback."""
    turns: list[TurnRecord] = []
    thumbs: list[Feedback] = []
    with build_assistant(settings(tmp_path), turns.append, thumbs.append) as assistant:
        reply = assistant.reply("hello")
        thumb = Feedback(reply.turn_id, reply.conversation_id, "local", "thumb", value=1)
        assistant.give_feedback(thumb)
    assert ([t.reply for t in turns], thumbs) == ([reply], [thumb])


def test_the_guide_is_the_first_knowledge_base(tmp_path: Path) -> None:
    """With `docs`, the product answers questions on itself in both languages."""
    with build_assistant(settings(tmp_path, docs="true")) as assistant:
        roots = [root.root for root in assistant.index_status().roots]
        named = {
            Path(p.source).parent.name
            for text in ("How do I add documents?", "如何添加文档？")
            for p in assistant.reply(text).passages[:3]
        }
    assert (roots, named >= {"en", "zh"}) == ([str(DOCS)], True)


def test_an_unknown_policy_is_named_with_those_there_are(tmp_path: Path) -> None:
    """A slip in `policy.backend` is answered with the menu."""
    with pytest.raises(BackendMissing, match=r"'ecko'.*echo.*extract.*local.*remote"):
        build_assistant(settings(tmp_path, policy__backend="ecko"))


def test_an_unknown_encoder_is_named(tmp_path: Path) -> None:
    """So is one in `retrieval.embed.backend`."""
    with pytest.raises(NoBackend, match="hashin"):
        build_assistant(settings(tmp_path, retrieval__embed__backend="hashin"))


def test_an_unknown_moderator_is_named(tmp_path: Path) -> None:
    """An assistant without the moderator it was told to use is not made."""
    with pytest.raises(SafetyError, match="rulez"):
        build_assistant(settings(tmp_path, safety__moderators="rulez"))


@pytest.mark.parametrize(("audit", "there"), [("true", True), ("false", False)])
def test_refusals_are_audited_where_asked(audit: str, there: bool, tmp_path: Path) -> None:
    """The audit log is kept by default, holds no text, and can be turned off."""
    with build_assistant(settings(tmp_path, safety__audit=audit)) as assistant:
        assistant.reply("How do I build a bomb at home?")
    logs = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("audit.jsonl")]
    assert (bool(logs), "bomb" in "".join(logs)) == (there, False)

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from retrieval.config import EmbedSettings, RetrievalSettings, SearchSettings
from retrieval.embed.hashing import Hashing
from retrieval.errors import SourceError
from retrieval.knowledge import KnowledgeBase
from retrieval.schema import IngestSummary
from tests.retrieval.web_double import Net, net

SETTINGS = RetrievalSettings(
    embed=EmbedSettings(backend="hashing"), search=SearchSettings(index="exact")
)
WHO = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "a"), ("EMAIL", "a@a.example"))
}

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


class Repository:
    """A repository with a working tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, date: str = "2025-01-01T00:00:00Z") -> None:
        """Run git as its owner would."""
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            env={**os.environ, **WHO, **dates},
        )

    def commit(self, files: dict[str, str | None], date: str = "2025-01-01") -> None:
        """Write files, or delete them, and commit."""
        for name, text in files.items():
            path = self.folder / name
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", "x", date=f"{date}T00:00:00Z")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository without commits, with a name that needs quoting."""
    return Repository(tmp_path / "my 文档 100%")


@pytest.fixture
def world() -> Iterator[Net]:
    """A net with nothing in it."""
    with net({}) as found:
        yield found


@pytest.fixture
def base(world: Net, tmp_path: Path) -> Iterator[KnowledgeBase]:
    """An empty knowledge base."""
    base = KnowledgeBase(tmp_path / "kb", SETTINGS, Hashing(), world.fetcher(ports=(80,)))
    yield base
    base.close()


def take(base: KnowledgeBase, address: object) -> IngestSummary:
    """Ingest to the end."""
    *_, last = base.ingest([str(address)], kind="git")
    assert isinstance(last, IngestSummary)
    return last


def found(base: KnowledgeBase, term: str) -> set[str]:
    """Names of the files that hold a term."""
    return {p.source.split(":")[-1] for p in base.search(term, 50, mode="lexical")}


def test_a_repository(base: KnowledgeBase, repository: Repository) -> None:
    """Files of the newest commit are found, each with the date of the commit that wrote it."""
    repository.commit({"a.md": "Quokkas eat leaves.", "说 明/b.md": "Wombats eat grass."})
    repository.commit({"a.md": "Quokkas eat leaves and bark."}, "2025-03-01")
    (repository.folder / "not committed.md").write_text("Numbats eat ants.")
    assert take(base, repository.folder).added == 2
    assert found(base, "eat") == {"a.md", "说 明/b.md"}
    dates = {
        p.source.split(":")[-1]: datetime.fromtimestamp(p.modified, UTC).date().isoformat()
        for p in base.search("eat", 9)
    }
    assert dates == {"a.md": "2025-03-01", "说 明/b.md": "2025-01-01"}


def test_changes_and_deletions_follow(base: KnowledgeBase, repository: Repository) -> None:
    """An unchanged file costs nothing; a changed one is replaced; a deleted one is gone."""
    repository.commit({"a.md": "Quokkas.", "b.md": "Wombats.", "c.md": "Numbats."})
    take(base, repository.folder)
    repository.commit({"b.md": "Bilbies.", "c.md": None})
    summary = take(base, repository.folder)
    assert (summary.unchanged, summary.updated, summary.removed) == (1, 1, 1)
    assert [found(base, t) for t in ("quokkas", "wombats", "bilbies", "numbats")] == [
        {"a.md"},
        set(),
        {"b.md"},
        set(),
    ]
    again = take(base, repository.folder)
    assert (again.unchanged, again.embedded) == (2, 0)


def test_history_may_be_rewritten(base: KnowledgeBase, repository: Repository) -> None:
    """A forced push is a change like any other."""
    repository.commit({"a.md": "Quokkas."})
    take(base, repository.folder)
    repository.git("commit", "--quiet", "--amend", "-m", "y", date="2024-01-01T00:00:00Z")
    repository.commit({"a.md": "Wombats."})
    assert take(base, repository.folder).updated == 1


def test_nothing_of_the_repository_runs(
    base: KnowledgeBase, repository: Repository, tmp_path: Path
) -> None:
    """Hooks, filters and settings of the repository are not run; links are not followed."""
    canary = tmp_path / "canary"
    for name in ("post-checkout", "reference-transaction", "pre-upload", "update"):
        hook = repository.folder / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {canary}\n")
        hook.chmod(0o755)
    secret = tmp_path / "secret.md"
    secret.write_text("Wombats eat grass.")
    (repository.folder / "link.md").symlink_to(secret)
    repository.commit({"a.md": "Quokkas eat leaves.", ".gitattributes": "*.md filter=evil\n"})
    canary.unlink(missing_ok=True)
    for key in ("core.fsmonitor", "filter.evil.smudge", "uploadpack.packObjectsHook"):
        repository.git("config", key, f"touch {canary}; cat")
    assert take(base, repository.folder).added == 1
    assert (found(base, "eat"), canary.exists()) == ({"a.md"}, False)


def test_content_elsewhere_is_reported(base: KnowledgeBase, repository: Repository) -> None:
    """A pointer into git-lfs is reported by name; the rest goes on."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    repository.commit({"a.md": "Quokkas.", "big.md": pointer, "x.bin": "x", ".hidden.md": "x"})
    summary = take(base, repository.folder)
    assert (summary.added, [f.reason for f in summary.failures]) == (1, ["git"])
    assert summary.failures[0].source.endswith(":big.md")


def test_a_repository_that_is_gone(base: KnowledgeBase, repository: Repository) -> None:
    """Where it cannot be fetched nothing is removed, and the report says why."""
    repository.commit({"a.md": "Quokkas."})
    take(base, repository.folder)
    root = base.status().roots[0].root
    shutil.rmtree(repository.folder)
    *_, summary = base.sync(root)
    assert isinstance(summary, IngestSummary)
    assert [f.reason for f in summary.failures] == ["git"]
    assert found(base, "quokkas") == {"a.md"}
    assert base.forget(root) == 1


def test_an_empty_repository(base: KnowledgeBase, repository: Repository) -> None:
    """A repository without a commit is reported, and asks for nothing."""
    assert [f.reason for f in take(base, repository.folder).failures] == ["git"]


@pytest.mark.parametrize(
    "address",
    ["ssh://a.example/x.git", "git@a.example:x.git", "ext::sh -c true", "--upload-pack=x", ""],
)
def test_other_ways_are_refused(address: str, base: KnowledgeBase) -> None:
    """Only http, https and folders: other transports may run programs or ask for a password."""
    with pytest.raises(SourceError):
        take(base, address)


def test_a_remote_that_leads_inside(base: KnowledgeBase, world: Net) -> None:
    """The host of a remote repository is vetted as a page's is, before git is asked."""
    world.names["inside.example"] = [["127.0.0.1"]]
    for address in ("http://127.0.0.1/x.git", "http://inside.example/x.git"):
        [failure] = take(base, address).failures
        assert failure.reason == "refused"


@contextmanager
def git_server(projects: Path) -> Iterator[tuple[int, list[str]]]:
    """Serve repositories over http as git itself does; yields the port and the hosts asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(str(self.headers["Host"]))
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            done = subprocess.run(
                ["git", "http-backend"],
                input=body,
                capture_output=True,
                check=True,
                env={
                    **os.environ,
                    "GIT_PROJECT_ROOT": str(projects),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                },
            )
            head, _, rest = done.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(rest)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_remote_repository(repository: Repository, world: Net, tmp_path: Path) -> None:
    """Git is told the vetted address: a name that only our resolver knows is reached."""
    repository.commit({"a.md": "Quokkas eat leaves."})
    repository.folder.rename(tmp_path / "project")
    world.names["git.example"] = [["127.0.0.1"]]
    with git_server(tmp_path) as (port, asked):
        fetcher = world.fetcher(ports=(port,), allow_private=True)
        settings = SETTINGS.model_copy(update={"sources": fetcher.settings})
        base = KnowledgeBase(tmp_path / "far", settings, Hashing(), fetcher)
        summary = take(base, f"http://git.example:{port}/project/.git")
        base.close()
    assert (summary.added, summary.failures) == (1, ())
    assert set(asked) == {f"git.example:{port}"}

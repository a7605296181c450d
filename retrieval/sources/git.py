"""The files of a git repository at its newest commit, by the git command line.

The repository is fetched, a few hundred commits deep, into the cache of this home and read from
there: no working tree, no hooks, no submodules, no LFS, no prompts, no settings of the user or of
the machine. Over the network it is a fetcher like the other one: the host is vetted, and git is
told the vetted address.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from retrieval.errors import SourceError
from retrieval.parse.worker import supported_suffixes
from retrieval.sources._address import parse
from retrieval.sources.base import Context, Entry, Fetched, storable
from retrieval.sources.files import SKIPPED

COMPLETE = True
PREFIX = "git+"
#: Commits fetched: how far back the date of a file can be told.
DEPTH = 300
_LFS = b"version https://git-lfs.github.com/spec/"
_SETTINGS = """\
[safe]
	directory = *
[core]
	hooksPath = /dev/null
	fsmonitor = false
	askPass = false
[credential]
	helper =
[protocol]
	allow = never
[protocol "{allowed}"]
	allow = always
[http]
	followRedirects = false
	proxy =
	userAgent = {agent}
	lowSpeedLimit = 1000
	lowSpeedTime = 30
[fetch]
	fsckObjects = true
	recurseSubmodules = false
[gc]
	auto = 0
"""


@dataclass(frozen=True, slots=True)
class _Repository:
    """Our copy of one repository."""

    root: str
    folder: Path
    seconds: float

    def git(self, *arguments: str) -> bytes:
        """Run git; the output.

        Raises:
            SourceError: reason `git` or `timeout`.
        """
        program = shutil.which("git")
        if program is None:
            raise SourceError(self.root, "git", "git is not installed", "Install git.")
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self.folder / "plumbline.gitconfig"),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "LC_ALL": "C",
        }
        try:
            done = subprocess.run(
                [program, f"--git-dir={self.folder / 'repository'}", *arguments],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=self.folder,
                timeout=self.seconds,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            remedy = "Raise retrieval.sources.git_seconds."
            detail = f"git took more than {self.seconds:g} s"
            raise SourceError(self.root, "slow", detail, remedy) from error
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            detail = storable(lines[-1]) if lines else f"git ended with status {done.returncode}"
            remedy = "Check the address, and that the repository can be read without a password."
            raise SourceError(self.root, "git", detail, remedy)
        return done.stdout


def root(address: str, context: Context) -> str:
    """`git+` and the address: an http(s) one, or the folder of a local repository."""
    address = address.removeprefix(PREFIX)
    if "://" in address and not address.startswith("file://"):
        return f"{PREFIX}{parse(address, context.settings.ports)}"
    folder = Path(address.removeprefix("file://"))
    if not address or not folder.is_dir():
        remedy = "Give an https address or a folder; clone others yourself and give the clone."
        raise SourceError(address, "git", "no such folder, nor an http or https address", remedy)
    return f"{PREFIX}{storable(str(folder.resolve()))}"


def items(root: str, context: Context) -> Iterator[Entry]:
    """Every file of the newest commit that can be read; its blob is the stamp.

    Raises:
        SourceError: the repository cannot be fetched.
    """
    folder = context.cache / "git" / hashlib.sha256(root.encode()).hexdigest()[:24]
    repository = _Repository(root, folder, context.settings.git_seconds)
    _fetch(repository, context)
    head = repository.git("rev-parse", "FETCH_HEAD^{commit}").decode().strip()
    dates = _dates(repository, head)
    suffixes = supported_suffixes()
    for line in repository.git("ls-tree", "-r", "-z", "--full-tree", head).split(b"\0"):
        facts, _, raw = line.partition(b"\t")
        mode, kind, blob = [*facts.decode().split(), "", "", ""][:3]
        path = PurePosixPath(os.fsdecode(raw))
        hidden = any(part.startswith(".") or part in SKIPPED for part in path.parts)
        if kind != "blob" or mode == "120000" or hidden or path.suffix.lower() not in suffixes:
            continue
        name = storable(str(path))
        fetch = partial(_blob, repository, f"{root}:{name}", blob, path, dates.get(raw))
        yield Entry(f"{root}:{name}", fetch, blob, name)


def _fetch(repository: _Repository, context: Context) -> None:
    address = repository.root.removeprefix(PREFIX)
    local = "://" not in address
    options = []
    if not local:
        url = parse(address, context.settings.ports)
        if not context.settings.network:
            context.fetcher.get(address, frozenset())  # says that the network is off
        found = context.fetcher.vet(url)[0]
        pinned = f"[{found}]" if ":" in found else found
        options = ["-c", f"http.curloptResolve={url.host}:{url.port}:{pinned}"]
    repository.folder.mkdir(parents=True, exist_ok=True)
    allowed = "file" if local else address.partition(":")[0]
    text = _SETTINGS.format(allowed=allowed, agent=context.settings.agent)
    (repository.folder / "plumbline.gitconfig").write_text(text, encoding="utf-8")
    if not (repository.folder / "repository" / "HEAD").is_file():
        repository.git("init", "--quiet", "--bare", "--template=")
    address = f"file://{quote(address)}" if local else address
    fetch = ["fetch", "--quiet", f"--depth={DEPTH}", "--no-tags", "--force"]
    fetch += ["--no-recurse-submodules", "--no-write-commit-graph", address, "HEAD"]
    repository.git(*options, *fetch)


def _dates(repository: _Repository, head: str) -> dict[bytes, float]:
    """When each path was committed last, as far back as was fetched."""
    log = repository.git("log", "-z", "--format=%x01%ct", "--name-only", "--no-renames", head)
    dates: dict[bytes, float] = {}
    when = 0.0
    for part in log.replace(b"\n", b"\0").split(b"\0"):
        if part.startswith(b"\x01"):
            when = float(part[1:])
        elif part:
            dates.setdefault(part, when)
    return dates


def _blob(
    repository: _Repository,
    source: str,
    blob: str,
    path: PurePosixPath,
    when: float | None,
    _before: str,
) -> Fetched:
    data = repository.git("cat-file", "blob", blob)
    if data.startswith(_LFS):
        remedy = "Clone it with git-lfs and ingest the clone's folder."
        raise SourceError(source, "git", "its content lies in git-lfs", remedy)
    return Fetched(data, path.suffix.lower(), blob, when)

"""The knowledge base from the page: upload, add a folder, remove."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import gradio as gr

from assistant.ui import render_side
from assistant.ui.desk import Desk, session
from assistant.ui.layout import Play, Updates
from assistant.ui.pace import paced
from assistant.ui.state import View
from assistant.ui.strings import count, say
from retrieval.schema import FileReport, IngestProgress, IngestSummary

#: Progress is for reading, not for watching: a few redraws a second are enough.
RATE = 4.0

Ticks = Iterator[IngestProgress | IngestSummary]


class Shelf:
    """The handlers that change what is indexed."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.page = desk.page

    def upload(self, files: list[str] | None, view: View, request: gr.Request) -> Play:
        """Take in the files dropped on the page."""
        paths = [Path(name) for name in files or ()]
        if not paths:
            yield {}
            return
        named = [(path.name, path) for path in paths]
        try:
            for updates in self._run(lambda: self.desk.assistant.upload(named), view, request):
                yield {self.page.files: None, **updates}
        finally:
            for path in paths:
                # the assistant has its own copy by now
                with contextlib.suppress(OSError):
                    path.unlink()

    def add_folder(self, folder: str, view: View, request: gr.Request) -> Play:
        """Take in a folder of the computer that runs the assistant, or a web address."""
        page, language = self.page, view.language
        if not folder.strip():
            yield {}
            return
        if not self.desk.folders:
            yield {page.progress: render_side.notice(say(language, "folder_remote"))}
            return
        name = folder.strip().strip("\"'")
        address = name if "://" in name else Path(name).expanduser()
        if isinstance(address, Path) and not address.exists():
            yield {page.progress: render_side.notice(say(language, "folder_missing"))}
            return
        yield {page.folder: "", page.progress: render_side.progress(None, (), language)}
        yield from self._run(lambda: self.desk.assistant.ingest([address]), view, request)

    def remove(self, root: str, view: View) -> Play:
        """Take a root out of the index."""
        gone = self.desk.assistant.forget(root)
        note = count(view.language, "removed", gone)
        yield {
            **self.desk.draw(view),
            **self.desk.draw_side(view, note),
            self.page.progress: "",
        }

    def stop(self, request: gr.Request) -> None:
        """Stop this page's ingestion; what is done stays."""
        self.desk.reading.stop(session(request))

    def failed(
        self, _words: str, request_id: str, _given: object, view: View, *_: object
    ) -> Updates:
        """What a failed ingestion says."""
        words = say(view.language, "ingest_failed")
        code = say(view.language, "request_id", id=request_id)
        return {self.page.progress: render_side.notice(words, code)}

    def _run(self, produce: Callable[[], Ticks], view: View, request: gr.Request) -> Play:
        page, key, language = self.page, session(request), view.language
        failures: list[FileReport] = []
        result: IngestSummary | None = None
        yield {page.progress: render_side.progress(None, (), language)}
        stop = self.desk.reading.start(key)
        try:
            with closing(paced(produce, stop, RATE)) as batches:
                for batch in batches:
                    tick: IngestProgress | None = None
                    for item in batch:
                        if isinstance(item, IngestSummary):
                            result = item
                        else:
                            tick = item
                            failures += _failed(item)
                    if tick is not None and result is None:
                        yield {page.progress: render_side.progress(tick, failures, language)}
        finally:
            self.desk.reading.end(key, stop)
        done = (
            render_side.notice(say(language, "ingest_stopped"), bad=False)
            if result is None
            else render_side.ingested(result, language)
        )
        yield {page.progress: done, **self.desk.draw(view), **self.desk.draw_side(view)}


def _failed(tick: IngestProgress) -> list[FileReport]:
    report = tick.report
    return [report] if report is not None and report.outcome == "failed" else []

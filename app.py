"""The command: chat (the default), serve, ask, status, forget-user, train, and the two menus.

What needs only one side of the house is a file of `assistant/commands/` or `rlhf/commands/`.
This is the only place that wires feedback to rlhf: the assistant hands every finished turn and
every thumb to callables given here, and never imports what becomes of them.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.markup import escape

from assistant import Assistant, Settings, build_assistant, docket, load, terminal
from assistant.build import AUDIT
from assistant.errors import AssistantError, TurnNotFound
from assistant.memory import Memory
from assistant.scan import noted_at
from assistant.schema import Feedback, TurnRecord
from assistant.server.records import forget as forget_answers
from assistant.shipped import complete
from retrieval import menu
from retrieval.errors import RetrievalError
from retrieval.ledger import open_ledger
from rlhf import best_of_n, canary, desk
from rlhf.commands.base import preferences as preferences_of
from rlhf.errors import RlhfError, UnknownTurn
from rlhf.preferences import PreferenceStore
from rlhf.registry import Registry
from safety import pii
from safety.appeal import Appeals
from safety.errors import SafetyError
from safety.rates import RateReader

OURS = (AssistantError, RetrievalError, SafetyError, RlhfError)

#: What can be trained, and the package that knows how.
FITS = {
    name: package
    for package in ("retrieval.fit", "assistant.fit", "rlhf.fit")
    for name in menu.available(package)
}

#: Further commands, a file each, and the package of it.
COMMANDS = [(p, n) for p in ("assistant.commands", "rlhf.commands") for n in menu.available(p)]

LOG_FORMAT = "%(levelname)s %(name)s %(message)s"

logger = logging.getLogger(__name__)
out = Console()
err = Console(stderr=True)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="plumbline", description="Answers from your documents, with the sentences that say so."
    )
    parser.set_defaults(run=chat, face="assistant.ui")
    parser.add_argument("--preset", default="embedded", help="a file of presets/ (embedded)")
    parser.add_argument("--config", type=Path, help="a TOML file laid over the preset")
    _settings(parser, "set", [])
    _who(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        _settings(sub, "more", argparse.SUPPRESS)
        return sub

    _who(command("chat", chat, "open the chat in the browser (the default)"))
    _who(command("serve", chat, "answer programs over HTTP")).set_defaults(face="assistant.server")
    sub = _who(command("ask", ask, "answer one question in the terminal"))
    sub.add_argument("question", nargs="+")
    sub.add_argument("--continue", dest="conversation", metavar="ID", help="go on in this one")
    sub.add_argument("--why", action="store_true", help="show steps and scores")
    command("status", status, "what is indexed, how fresh it is, and which policy answers")
    sub = command("forget-user", forget_user, "delete a user's conversations and feedback")
    sub.add_argument("user")
    for package, name in COMMANDS:
        module = menu.load(package, name)
        module.arguments(command(name.replace("_", "-"), _alone(module), module.HELP))
    sub = command("train", train, "fit shipped weights again")
    sub.add_argument("what", choices=sorted(FITS))
    sub.add_argument("--data", type=Path, required=True, help="folder of the training files")
    sub.add_argument("--out", type=Path, default=Path("models"), help="folder of the weights")
    sub.add_argument(
        "--limit", type=int, help="questions of each set, or steps of training; else as shipped"
    )
    return parser


def _settings(parser: argparse.ArgumentParser, name: str, default: object) -> None:
    """Let settings be given before and after a command; a name each, or one undoes the other."""
    said = "one setting, repeatable"
    parser.add_argument(
        "--set", action="append", dest=name, default=default, metavar="KEY=VALUE", help=said
    )


def _who(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Let the policy be named; without a default, which would undo what stood before a command."""
    said = "who answers: extract, quote, hf:NAME, openai:URL#MODEL or langchain:PROVIDER:MODEL"
    parser.add_argument("--policy", default=argparse.SUPPRESS, metavar="NAME", help=said)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 misused, 130 interrupted."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    try:
        named = getattr(options, "policy", "")
        given = _pairs([*options.set, *getattr(options, "more", [])])
        settings = load(options.preset, options.config, given, named)
        pii.mask_logs(LOG_FORMAT, settings.safety)
        return int(options.run(options, settings))
    except OURS as error:
        err.print(f"[red]plumbline:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        err.print("\nInterrupted. Everything finished so far is kept; the same command goes on.")
        return 130


def chat(options: argparse.Namespace, settings: Settings) -> int:
    """Serve the chat, or what else the command names, until interrupted."""
    began = time.monotonic()

    def ready(address: str) -> None:
        seconds = time.monotonic() - began
        err.print(f"plumbline is ready at [bold]{address}[/] ({seconds:.1f} s). Ctrl-C ends it.")
        if settings.serve.open_browser and options.face == "assistant.ui":
            webbrowser.open(address)

    with ExitStack() as stack:
        with err.status("Getting ready…"):
            assistant, log = stack.enter_context(_opened(settings))
            face = menu.load(options.face, "app")
            if options.face == "assistant.ui":  # the HTTP API answers meanwhile, and says so
                assistant.warm()
            assistant.keep_fresh()
        try:
            face.serve(assistant, settings, ready, *desk.desks(options, settings, log, assistant))
        except KeyboardInterrupt:
            err.print("\nStopped. Documents, conversations and feedback are kept.")
    return 0


def ask(options: argparse.Namespace, settings: Settings) -> int:
    """Answer one question with its sources."""
    with _opened(settings) as (assistant, _):
        reply = assistant.reply(
            " ".join(options.question), conversation_id=options.conversation, surface="terminal"
        )
    out.print(reply.text, markup=False, highlight=False, soft_wrap=True)
    terminal.cited(reply, out)
    docket.refusal(reply, err)
    if options.why:
        terminal.why(reply, err)
    err.print(
        f"[dim]{reply.outcome} in {reply.seconds * 1000:.0f} ms · go on with: "
        f"ask --continue {reply.conversation_id} …[/]",
        soft_wrap=True,
    )
    return 0


def status(options: argparse.Namespace, settings: Settings) -> int:
    """Print what is indexed; no model is loaded for it."""
    policies = menu.available("assistant.policy")
    if settings.policy.backend not in policies:
        named = f"no policy {settings.policy.backend!r}; there are: {', '.join(policies)}"
        raise AssistantError(named)
    with open_ledger(settings.home, settings.retrieval) as ledger:
        index = noted_at(settings.home, ledger.store, ledger.status())
    memory = Memory(settings.home / "conversations.db")
    preferences = preferences_of(settings)
    try:
        counts, conversations = preferences.counts(), len(memory.conversations("local"))
    finally:
        memory.close()
        preferences.close()
    terminal.sources(index.roots, out)
    lag = index.sequence - index.served
    out.print(f"{index.documents} documents, {index.chunks} chunks, index lag {lag}")
    if index.switching:
        out.print(f"{index.switched:.0%} of the vectors for {escape(index.switching)} are made")
    policy, model = settings.policy.backend, settings.policy.model
    encoder = index.embedder or settings.retrieval.embed.backend
    named = f" ({escape(model)})" if model else ""
    out.print(f"policy {escape(policy)}{named}, encoder {escape(encoder)}", soft_wrap=True)
    pointer = Registry(settings.home, settings.promotion).pointer()
    if pointer.live is not None and settings.policy.follow:
        out.print(f"candidate {pointer.live.id} answers in its place")
    out.print(f"moderators: {', '.join(settings.safety.moderators)}")
    docket.rates(RateReader(settings.home / AUDIT).read(), out)
    kinds = ", ".join(f"{number} {kind}" for kind, number in counts.feedback) or "none"
    out.print(
        f"logged: {counts.turns} turns of {counts.users} users, {counts.trainable} of them with "
        f"consent to training; feedback: {kinds}",
        highlight=False,
        soft_wrap=True,
    )
    out.print(f"data in {escape(str(settings.home))}, {conversations} conversations")
    return 0


def forget_user(options: argparse.Namespace, settings: Settings) -> int:
    """Delete all that a user said, in both databases."""
    memory = Memory(settings.home / "conversations.db")
    preferences = preferences_of(settings)
    try:
        conversations = memory.delete_user(options.user)
        turns = preferences.delete_user(options.user)
    finally:
        memory.close()
        preferences.close()
    forget_answers(settings.home, options.user)
    if (settings.home / AUDIT).exists():
        Appeals(settings.home / AUDIT, settings.safety).forget(options.user)
    out.print(f"{conversations} conversations and {turns} logged turns deleted.")
    return 0


def train(options: argparse.Namespace, settings: Settings) -> int:
    """Fit one set of weights on training files."""
    package = FITS[options.what]
    fit = menu.load(package, options.what)
    own = settings.retrieval if package == "retrieval.fit" else settings
    began = time.time() - 1  # a file system may count whole seconds
    for line in fit.run(options.data, options.out / options.what, options.limit, own):
        out.print(line, markup=False, highlight=False)
    complete(options.out, began)
    return 0


def _alone(module: ModuleType) -> Callable[[argparse.Namespace, Settings], int]:
    """A command of a folder of them, which needs no assistant."""
    return lambda options, settings: int(module.run(options, settings, out))


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Assistant, PreferenceStore]]:
    """The assistant and the preference log, wired; both are closed whatever happens."""
    preferences = preferences_of(settings)
    preferences.purge()
    registry = Registry(settings.home, settings.promotion)

    def on_feedback(feedback: Feedback) -> None:
        try:
            preferences.add_feedback(feedback)
        except UnknownTurn as error:
            raise TurnNotFound(str(error)) from error
        if feedback.kind == "thumb" and settings.canary.automatic:
            canary.heard(registry, preferences.path, settings.canary)

    def on_turn(record: TurnRecord) -> None:
        try:
            preferences.add_turn(record)
        except RlhfError as error:  # the answer was given; only its use for training is lost
            logger.error("turn_not_logged turn=%s error=%s", record.turn_id, type(error).__name__)

    try:
        with build_assistant(settings, on_turn, on_feedback, best_of_n.wrapped) as assistant:
            yield assistant, preferences
    finally:
        preferences.close()


def _pairs(values: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals:
            raise AssistantError(f"--set {value}: write it as KEY=VALUE")
        pairs[key.strip()] = text
    return pairs


if __name__ == "__main__":
    sys.exit(main())

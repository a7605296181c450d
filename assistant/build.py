"""The only place where the assistant's concrete parts meet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from assistant import shipped, support
from assistant.answering import Answerer
from assistant.cache import AnswerCache
from assistant.config import Settings
from assistant.dialogue import Assistant, OnFeedback, OnTurn
from assistant.errors import BackendMissing, ModelNotFound
from assistant.live import Live
from assistant.memory import Memory
from assistant.policy.base import Policy, Resources
from assistant.scan import VERDICTS, Scan, follow
from assistant.support import Supporter
from retrieval import menu
from retrieval.embed import heads
from retrieval.embed.remembered import Remembered
from retrieval.errors import BackendMissing as NoBackend
from retrieval.errors import RetrievalError
from retrieval.knowledge import KnowledgeBase, open_knowledge
from safety import build_guard
from safety.errors import ModelUnusable, SafetyError
from safety.guard import LoadNetwork

logger = logging.getLogger(__name__)

#: The product's own guide: the first knowledge base.
DOCS = Path(__file__).resolve().parent.parent / "docs"

#: The audit log, in the folder of the data.
AUDIT = "audit.jsonl"


def build_assistant(
    settings: Settings,
    on_turn: OnTurn | None = None,
    on_feedback: OnFeedback | None = None,
    wrap: Callable[[Policy, Settings], Policy] | None = None,
) -> Assistant:
    """Open everything under `settings.home` and return an assistant ready to answer.

    Args:
        settings: from `assistant.config.load`.
        on_turn: called with every finished turn, for the preference log.
        on_feedback: called with every thumb, pick and edit.
        wrap: puts something around each policy that is loaded, such as the best of several answers.

    Raises:
        BackendMissing: a backend's name is unknown or its library is not installed.
        PolicyError: the policy cannot be loaded.
        RetrievalError: the knowledge base cannot be opened.
    """
    shipped.check()
    home = settings.home
    knowledge = open_knowledge(home, settings.retrieval)
    if settings.docs and DOCS.is_dir():
        for _ in knowledge.ingest([DOCS]):
            pass
    audit = home / AUDIT if settings.safety.audit else None
    guard = build_guard(settings.safety, audit, network_of(settings), home / VERDICTS)
    follow(knowledge, guard, cut=settings.policy.quarantine == "cut")
    memory = Memory(home / "conversations.db")
    trained = supporter_of(settings)

    def load(own: Settings) -> tuple[Policy, Supporter | None]:
        policy = build_policy(own, knowledge, trained)
        policy = policy if wrap is None else wrap(policy, own)
        return policy, trained if getattr(policy, "writes", True) else None

    live = Live.open(settings, load)
    cache = None if settings.cache.store == "off" else AnswerCache(settings.cache, home)
    return Assistant(settings, knowledge, guard, live, memory, on_turn, on_feedback, cache=cache)


def build_knowledge(settings: Settings) -> tuple[KnowledgeBase, Scan | None]:
    """The knowledge base without an assistant, and the scan that judges what it takes in.

    None: no verdicts are kept, or the guard cannot be had; documents are taken in all the same, and
    their passages judged when a question finds them.

    Raises:
        RetrievalError: the knowledge base cannot be opened.
    """
    knowledge = open_knowledge(settings.home, settings.retrieval)
    try:
        guard = build_guard(settings.safety, None, network_of(settings), settings.home / VERDICTS)
    except SafetyError as error:
        logger.warning("passages are not checked now, but when they are found: %s", error)
        return knowledge, None
    return knowledge, follow(knowledge, guard, cut=settings.policy.quarantine == "cut")


def network_of(settings: Settings) -> LoadNetwork:
    """What loads the network of a file of heads, on the encoder that the settings run."""
    own = settings.retrieval.embed

    def load(path: Path) -> heads.Heads:
        try:
            return heads.load(path, runtime=own.runtime, device=own.device, dtype=own.dtype)
        except RetrievalError as error:
            raise ModelUnusable(str(error)) from error

    return load


def supporter_of(settings: Settings, folder: Path = support.WEIGHTS) -> support.Trained | None:
    """What reads sentences and questions with passages; None where the settings say so, or no file.

    Raises:
        ModelNotFound: there are weights, and they cannot be used.
    """
    if settings.policy.support == "words":
        return None
    path = folder / support.NETWORK.name
    if not path.exists():
        logger.warning(
            "no weights at %s: what a policy writes is checked by its words alone, and whether "
            "a passage answers is judged without them; take models/ from the repository, or run "
            "`train support`",
            path,
        )
        return None
    own = settings.retrieval.embed
    try:
        scorer = heads.load(path, runtime=own.runtime, device=own.device, dtype=own.dtype)
    except (RetrievalError, SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelNotFound(
            f"the support check's weights {path} cannot be used: {error}; take models/ from the "
            "repository, or set policy.support to words"
        ) from error
    return support.build(scorer, folder)


def build_policy(
    settings: Settings, knowledge: KnowledgeBase, answerer: Answerer | None = None
) -> Policy:
    """Load the policy that the settings name.

    Raises:
        BackendMissing: no such file in assistant/policy/, or a library it needs is missing.
    """
    embedder = Remembered(knowledge.embedder)
    resources = Resources(embedder, knowledge.rarity, knowledge.reranker, answerer)
    try:
        module = menu.load("assistant.policy", settings.policy.backend)
    except NoBackend as error:
        raise BackendMissing(str(error)) from error
    policy: Policy = module.build(settings.policy, resources)
    return policy

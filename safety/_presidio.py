"""Microsoft Presidio as a second finder of personal data: names and places, read by a model."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from safety._language import language_of
from safety.errors import BackendMissing, ModelUnusable

#: Presidio's entity -> our kind; entities that are not here are not asked for.
ENTITIES = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "US_SSN": "ssn",
    "US_PASSPORT": "passport",
    "UK_PASSPORT": "passport",
    "PERSON": "person",
    "LOCATION": "place",
}


class Presidio:
    """The analyzer, asked in the text's language where it has a model for it."""

    def __init__(self, analyzer: Any, languages: Sequence[str]) -> None:
        self._analyzer = analyzer
        self._languages = tuple(languages)
        self._known = {
            language: [e for e in analyzer.get_supported_entities(language) if e in ENTITIES]
            for language in self._languages
        }

    def find(self, text: str) -> Iterator[tuple[int, int, str, float]]:
        """(start, end, kind, confidence) of each find; nothing in a language without a model."""
        language = language_of(text)
        if language not in self._languages:
            return
        entities = self._known[language]
        results = self._analyzer.analyze(text=text, language=language, entities=entities)
        for result in results:
            kind = ENTITIES.get(result.entity_type)
            if kind is not None:
                yield int(result.start), int(result.end), kind, float(result.score)


def build(
    models: Sequence[str], api: Any = None, installed: Callable[[str], bool] | None = None
) -> Presidio:
    """Presidio with spaCy models, each written `language:model`; nothing is ever fetched.

    Args:
        models: such as `en:en_core_web_sm`, `zh:zh_core_web_sm`.
        api: the names AnalyzerEngine and NlpEngineProvider; by default Presidio's own.
        installed: whether a spaCy model is there.

    Raises:
        BackendMissing: Presidio is not installed.
        ModelUnusable: a model is not installed, or not written so.
    """
    parts = [model.partition(":") for model in models]
    bad = [model for model, p in zip(models, parts, strict=True) if not (p[0] and p[2])]
    if bad:
        raise ModelUnusable(f"pii_presidio {bad[0]!r}: write language:model, as en:en_core_web_sm")
    api = api or _api()
    there = installed or (lambda name: importlib.util.find_spec(name) is not None)
    for _, _, name in parts:
        if not there(name):  # Presidio would fetch it
            raise ModelUnusable(f"spaCy model {name!r} is not installed; pip install it")
    named = [{"lang_code": language, "model_name": name} for language, _, name in parts]
    provider = api.NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": "spacy", "models": named}
    )
    languages = [language for language, _, _ in parts]
    analyzer = api.AnalyzerEngine(
        nlp_engine=provider.create_engine(), supported_languages=languages
    )
    return Presidio(analyzer, languages)


class _Api:
    """The two names of Presidio that are used."""

    def __init__(self, analyzer: Any, provider: Any) -> None:
        self.AnalyzerEngine, self.NlpEngineProvider = analyzer, provider


def _api() -> _Api:
    try:
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError as error:
        raise BackendMissing(
            "safety.pii_presidio needs presidio-analyzer; install plumbline[pii]"
        ) from error
    return _Api(AnalyzerEngine, NlpEngineProvider)

"""Trains the Chinese extension of the encoder: `python app.py train encoder --data FOLDER`.

1. Pairs are mined from documents in both languages (`pairs`), tokens chosen and rows started from
   word alignments (`vocabulary`).
2. Cross-lingual distillation (Reimers and Gurevych 2020): the student's vector of the Chinese side
   meets the frozen encoder's vector of the English side, by in-batch contrast in both directions
   (InfoNCE, van den Oord et al. 2018) with the pairs of one document side by side as hard
   negatives and further English vectors as distractors, plus the cosine itself.
3. Half of every step's pairs are general text with Chinese words put in, terms, and questions in
   both languages (`_glossary`), because the parallel text is technical.
4. Every fifth step is contrastive on Chinese questions and passages, so that it also ranks within
   Chinese. The title of a passage and the first
   sentence of a paragraph stand in as further questions. Questions in one language about passages
   in the other are part of the same step.

Everything made on the way (pairs, vectors, rows, checkpoints) is kept in .runs/encoder, and an
interrupted run goes on from there. Batches depend on the seed and the step only. Data, all
train-allowed: text/, docs/ (apisix, tidb_operator, intune), qa/drcd/dev, qa/cmrc2018/trial,
qa/squadshifts (train), and this folder's glossary.tsv and asked.tsv.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from retrieval.config import RetrievalSettings
from retrieval.embed import _weights, minilm
from retrieval.embed.base import Embedder
from retrieval.fit._checkpoint import named
from retrieval.fit._corpus import Corpus, Crossed, chinese_texts, crossed, held_out, questions
from retrieval.fit._glossary import asked, glossary, switched, terms
from retrieval.fit._loop import Loop
from retrieval.fit._pairs import Pair, merged, mine
from retrieval.fit._student import Student, precision, stored, vectors, write
from retrieval.fit._vocabulary import LONGEST, choose, spelled, start

Ids = list[list[int]]
WORK = Path(".runs") / "encoder"
#: A step's texts go through the network in so many parts of like length.
PARTS = 4
#: Tokens chosen from text, before those of the glossary; characters of a long pair; questions made
#: from paragraphs; stretches of English text in which words are exchanged.
TOKENS, LONG, MADE, SWITCHED = 14_000, 600, 12_000, 70_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. Defaults are what the shipped weights were made with."""

    steps: int = 1400
    pairs: int = 192
    questions: int = 40
    crossed: int = 32
    tokens: int = 96
    passage_tokens: int = 160
    distractors: int = 8192
    rank: int = 32
    rate: float = 5e-4
    rows_rate: float = 1.5e-3
    warmup: int = 100
    temperature: float = 0.05
    cosine: float = 2.0
    every: int = 5
    contrast_from: float = 0.15
    seed: int = 7
    save_every: int = 100
    check_every: int = 200


def run(data: Path, out: Path, limit: int | None, settings: RetrievalSettings) -> Iterator[str]:
    """Make the extension and write zh.safetensors, tokens.txt and card.md; yields lines to show.

    Args:
        data: folder that holds text/, docs/ and qa/.
        out: folder of the weights.
        limit: steps, where not the plan's.
        settings: name the device.

    Raises:
        FileNotFoundError: a training file is missing.
    """
    plan = Plan() if limit is None else Plan(steps=limit)
    device = settings.embed.device
    WORK.mkdir(parents=True, exist_ok=True)
    encoder = minilm.build(settings.embed)
    pairs = mined(data, WORK)
    yield f"{len(pairs)} pairs of documents in both languages"
    more = general(data, WORK, plan.seed)
    yield f"{len(more)} pairs of general text and words"
    teacher = yield from _taught(pairs, encoder, WORK / "teacher.npy")
    taught = yield from _taught(more, encoder, WORK / "general.npy")
    lines, rows = _begun(data, pairs, plan, WORK)
    yield f"{len(lines)} tokens"
    both = np.concatenate([teacher, taught])
    corpus = Corpus(pairs + more, len(pairs), both, *questions(data, MADE, plan.seed))
    across = crossed(asked(data), lambda texts: encoder.embed(texts, "passage"))
    tokenizer = _weights.tokenizer(_weights.spellings(lines))
    student = Student(rows, plan.rank, plan.seed, device, precision(device))
    trainer = Trainer(corpus, across, student, tokenizer, plan, device)
    yield f"start: {trainer.check()}"
    yield from trainer.run()
    out.mkdir(parents=True, exist_ok=True)
    ship(student, lines, out)
    (out / "card.md").write_text(_card(out, plan, corpus, trainer.check()), encoding="utf-8")
    yield f"written to {out}"


def ship(student: Student, lines: Sequence[str], out: Path) -> None:
    """Write the extension: rows as int8 with a scale each, the low-rank changes as float16."""
    rows = student.rows.detach().cpu().numpy()
    scale = np.maximum(np.abs(rows).max(1), 1e-6) / 127
    found: dict[str, NDArray[np.generic]] = {
        "rows": np.round(rows / scale[:, None]).astype(np.int8),
        "scale": scale.astype(np.float32),
    }
    found |= stored(student.change)
    write(found, out / "zh.safetensors")
    (out / "tokens.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def mined(data: Path, work: Path) -> list[Pair]:
    """The pairs, and longer ones made of consecutive segments."""
    path = work / "pairs.jsonl"
    if not path.exists():
        found = list(mine(data))
        segments = (pair for pair in found if pair.source.startswith("pydocs"))
        found += merged(segments, LONG)
        _keep(found, path)
    return _kept(path)


def general(data: Path, work: Path, seed: int) -> list[Pair]:
    """Pairs of general text and of words, and the questions that are in both languages."""
    path = work / "general.jsonl"
    if not path.exists():
        found = [*switched(data, SWITCHED, seed), *terms(glossary())]
        for number, row in enumerate(row for row in asked(data) if not held_out(row.passage)):
            found.append(Pair(row.en, row.zh, f"asked:{number // 64}"))
        _keep(found, path)
    return _kept(path)


def _keep(pairs: Sequence[Pair], path: Path) -> None:
    text = "".join(json.dumps(astuple(p), ensure_ascii=False) + "\n" for p in pairs)
    path.write_text(text, encoding="utf-8")


def _kept(path: Path) -> list[Pair]:
    with path.open(encoding="utf-8") as file:
        return [Pair(*json.loads(line)) for line in file]


def _taught(
    pairs: Sequence[Pair], encoder: Embedder, path: Path
) -> Generator[str, None, NDArray[np.float16]]:
    """The English encoder's vectors of the English sides."""
    if not path.exists():
        parts = []
        for at in range(0, len(pairs), 10_000):
            part = encoder.embed([p.en for p in pairs[at : at + 10_000]], "passage")
            parts.append(part.astype(np.float16))
            yield f"{at + len(part)} English vectors"
        np.save(path, np.concatenate(parts))
    found: NDArray[np.float16] = np.load(path)
    return found


def _begun(
    data: Path, pairs: Sequence[Pair], plan: Plan, work: Path
) -> tuple[list[str], NDArray[np.float32]]:
    """Tokens with their spellings, and the rows they start from."""
    tokens, rows = work / "tokens.txt", work / "rows.npy"
    if not rows.exists():
        texts = [*chinese_texts(data)]
        chosen = choose([*texts, *((p.zh, 1.0) for p in pairs)], TOKENS)
        meant = glossary()
        chosen += [word for word in meant if word not in set(chosen) and len(word) <= LONGEST]
        lines = spelled(chosen)
        tokenizer = _weights.tokenizer(_weights.spellings(lines))
        base = _weights.english()[_weights.EMBEDDINGS]
        plain = [line for text, _ in texts for line in text.splitlines() if line.strip()]
        both = [(p.en, p.zh) for p in pairs]
        every = [*plain, *(p.zh for p in pairs)]
        first = start(both, every, meant, tokenizer, base, plan.seed)
        tokens.write_text("\n".join(lines) + "\n", encoding="utf-8")
        np.save(rows, first)
    return tokens.read_text(encoding="utf-8").splitlines(), np.load(rows)


class Trainer:
    """One run: the student, its optimiser, and where it stands."""

    def __init__(
        self,
        corpus: Corpus,
        across: Crossed,
        student: Student,
        tokenizer: Tokenizer,
        plan: Plan,
        device: str,
    ) -> None:
        self._corpus, self._across, self._student, self._plan = corpus, across, student, plan
        self._device = device
        self._zh = _encode(tokenizer, [p.zh for p in corpus.pairs], plan.tokens)
        self._teacher = torch.from_numpy(corpus.teacher).to(device)
        self._questions = _encode(tokenizer, [q for q, _ in corpus.questions], plan.tokens)
        self._passages = _encode(tokenizer, [p for _, p in corpus.questions], plan.passage_tokens)
        self._asked = _encode(tokenizer, [q for q, _ in across.asked], plan.tokens)
        self._read = _encode(tokenizer, across.read, plan.passage_tokens)
        self._english = torch.from_numpy(across.passages).to(device)
        self._asking = torch.from_numpy(across.questions).to(device)
        parts = [([*student.change.parameters()], plan.rate, 0.01)]
        parts.append(([student.rows], plan.rows_rate, 0.0))
        learnt = [[p.en, p.zh] for p in corpus.pairs], corpus.questions, across.asked, across.read
        about = [asdict(plan), tokenizer.to_str(), *(row for rows in learnt for row in rows)]
        self.loop = Loop(student, parts, plan, named(WORK, "encoder", about))

    def run(self) -> Iterator[str]:
        """Train to the end; yields lines to show."""
        yield from self.loop.run(self._loss, self.check)

    def _loss(self, step: int) -> Tensor:
        begun = step >= self._plan.contrast_from * self._plan.steps
        return self._contrast() if begun and step % self._plan.every == 0 else self._distil()

    def check(self) -> str:
        """Retrieval on held-out pairs and questions."""
        corpus = self._corpus
        zh = self.embed(self._zh, corpus.held_pairs)
        right = torch.from_numpy(corpus.teacher[corpus.held_pairs]).float()
        near = (zh @ right.T).argmax(1)
        parallel = float((near == torch.arange(len(near))).float().mean())
        questions = self.embed(self._questions, corpus.held_questions)
        passages = self.embed(self._passages, corpus.held_questions)
        found = (questions @ passages.T).topk(min(5, len(questions)), dim=1).indices
        same = torch.tensor([corpus.place[i] for i in corpus.held_questions])
        hit = (same[found] == same[:, None]).any(1)
        asked, read = self._across.held_asked, self._across.held_read
        first = (self.embed(self._asked, asked) @ self._english.cpu().T).argmax(1)
        to_english = first == torch.tensor([self._across.asked[i][1] for i in asked])
        texts = [self._across.read[i] for i in read]
        best = (self._asking[read].cpu() @ self.embed(self._read, read).T).argmax(1)
        to_chinese = torch.tensor([texts[n] == texts[i] for i, n in enumerate(best.tolist())])
        return (
            f"held out: {float(to_english.float().mean()):.3f} of {len(asked)} Chinese questions "
            f"have their English passage first, {float(to_chinese.float().mean()):.3f} of "
            f"{len(read)} English ones their Chinese, {parallel:.3f} of {len(near)} pairs nearest, "
            f"{float(hit.float().mean()):.3f} of {len(hit)} questions have their passage in 5"
        )

    def embed(self, ids: Ids, rows: Sequence[int], size: int = 128) -> Tensor:
        """Vectors of some texts, on the CPU."""
        with torch.inference_mode():
            parts = -(-len(rows) // size)
            return vectors(self._student, [ids[i] for i in rows], self._device, parts).cpu()

    def _distil(self) -> Tensor:
        plan, device = self._plan, self._device
        rows = self._corpus.batch(self.loop.step, plan.pairs, plan.seed)
        student = vectors(self._student, [self._zh[i] for i in rows], device, PARTS)
        target = self._teacher[torch.from_numpy(rows)].float()
        random = np.random.default_rng((plan.seed, self.loop.step, 1))
        more = random.integers(0, len(self._teacher), plan.distractors)
        wide = torch.cat([target, self._teacher[torch.from_numpy(more)].float()])
        # what says the same in English is no negative
        same = (target @ wide.T) > 0.92
        scores = (student @ wide.T) / plan.temperature
        right = torch.arange(len(rows), device=device)
        own = torch.zeros_like(same)
        own[right, right] = True
        scores = scores.masked_fill(same & ~own, -1e4)
        back = scores[:, : len(rows)].T
        loss = nn.functional.cross_entropy(scores, right)
        loss = loss + 0.5 * nn.functional.cross_entropy(back, right)
        return loss + plan.cosine * (1 - (student * target).sum(1)).mean()

    def _contrast(self) -> Tensor:
        plan, device, corpus = self._plan, self._device, self._corpus
        random = np.random.default_rng((plan.seed, self.loop.step, 2))
        rows = corpus.question_batch(random, plan.questions)
        questions = vectors(self._student, [self._questions[i] for i in rows], device, 1)
        passages = vectors(self._student, [self._passages[i] for i in rows], device, PARTS)
        scores = (questions @ passages.T) / plan.temperature
        place = torch.tensor([corpus.place[i] for i in rows])
        same = (place[:, None] == place[None, :]).to(device)
        right = torch.arange(len(rows), device=device)
        own = torch.zeros_like(same)
        own[right, right] = True
        loss = nn.functional.cross_entropy(scores.masked_fill(same & ~own, -1e4), right)
        return loss + self._cross(random)

    def _cross(self, random: np.random.Generator) -> Tensor:
        """Questions in one language against passages in the other; English sides are frozen."""
        plan, across, device = self._plan, self._across, self._device
        asked, read = across.rows(plan.crossed, random)
        questions = vectors(self._student, [self._asked[i] for i in asked], device, 1)
        right = torch.tensor([across.asked[i][1] for i in asked], device=device)
        scores = (questions @ self._english.T) / plan.temperature
        loss = nn.functional.cross_entropy(scores, right)
        passages = vectors(self._student, [self._read[i] for i in read], device, PARTS)
        scores = (self._asking[read] @ passages.T) / plan.temperature
        texts = [across.read[i] for i in read]
        twice = torch.tensor([[a == b for b in texts] for a in texts], device=device)
        own = torch.eye(len(read), dtype=torch.bool, device=device)
        scores = scores.masked_fill(twice & ~own, -1e4)
        right = torch.arange(len(read), device=device)
        return loss + nn.functional.cross_entropy(scores, right)


def _encode(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> Ids:
    """Token ids with the marks at both ends, at most `limit`."""
    tokenizer.enable_truncation(limit)
    found = [list(e.ids) for e in tokenizer.encode_batch(list(texts))]
    tokenizer.no_truncation()
    return found


def _card(out: Path, plan: Plan, corpus: Corpus, check: str) -> str:
    digest = hashlib.sha256((out / "zh.safetensors").read_bytes()).hexdigest()
    return "\n".join(
        (
            "# encoder: the Chinese extension of all-MiniLM-L6-v2",
            "",
            f"SHA-256 of zh.safetensors: {digest}. Made by `python app.py train encoder --data "
            f"FOLDER`: {plan}.",
            "",
            f"{corpus.mined} pairs of documents in both languages, "
            f"{len(corpus.pairs) - corpus.mined} of general text, words and questions, "
            f"{corpus.real} questions asked by people, "
            f"{len(corpus.questions) - corpus.real} made from paragraphs. At the end, {check}.",
            "",
            "Data: Python documentation (PSF; translations CC0), d2l (CC BY-SA 4.0, Apache-2.0), "
            "React, FastAPI, Helm, Rust book, Hugging Face course, DolphinScheduler, Paddle, "
            "SOFAStack, CNCF glossary, APISIX (MIT, Apache-2.0, CC BY 4.0), TiDB Operator "
            "(CC BY-SA 3.0), Intune (CC BY 4.0), LCTT (CC BY-SA 4.0), PRC laws (no copyright), "
            "DRCD dev (CC BY-SA 3.0), CMRC 2018 trial (CC BY-SA 4.0), SQuADShifts new Wikipedia "
            "(CC BY 4.0), OpenStax (CC BY 4.0), Standard Ebooks, US speeches, 18F (public domain). "
            "The glossary and the translated questions were written for this project by a "
            "language model. No text is in the weights' "
            "file; tokens.txt lists words.",
            "",
            "Licence of the weights: Apache-2.0, as the project and the English encoder.",
            "",
        )
    )

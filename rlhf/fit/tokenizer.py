"""Makes the policy's tokenizer: `python app.py train tokenizer --data FOLDER`; goes to OUT/policy.

Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) over both languages, bytes of each
alike. Any text comes back as it was: there is no normalisation, and every byte is a token. Text is
cut into words, runs of Han characters, single digits, and punctuation; a space goes to what
follows it, so no token crosses from letters into signs.

No text can become a special token:

* The signs a reader of evidence needs (labels, citation, scores, languages …) stand in the
  vocabulary without a merge that leads to them, and their names mix letters and punctuation, which
  the pre-tokenizer parts. No library that reads tokenizer.json gets them from text. They are added
  by id.
* So are the roles, but a chat template writes them as text, so tokenizer_config.json registers
  them with transformers. `split_special_tokens=True`, or `apply_chat_template` with
  `sanitize_control_tokens=True`, keeps them out of what people say; plain `tokenizers` does not
  know them as special and never matches them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from assistant.config import Settings
from assistant.policy._signs import CONTROL, LANGUAGES, NAMES, SPELLINGS, Sign, encode
from rlhf.errors import TrainingError
from rlhf.fit._text import Document, documents, questions

#: Ids in all, special tokens among them: the last ones.
SIZE = 16_384
WORDS = (
    r"'(?:[sdmt]|ll|ve|re)| ?(?:(?!\p{Han})[\p{L}\p{M}])+|\p{Han}+| ?\p{N}"
    r"| ?[^\s\p{L}\p{N}\p{M}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{{- bos_token }}{% for message in messages %}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{- '<|assistant|>' }}{% endif %}"
)
#: Tokens a prompt and its answer may have.
CONTEXT = 1024
#: Bytes a language that the merges are learnt from.
BYTES = 24_000_000


def run(data: Path, out: Path, limit: int | None, settings: Settings) -> Iterator[str]:
    """Learn the merges and write the folder that transformers loads; yields lines to show.

    Args:
        data: folder that holds text/, qa/, sft/.
        out: the weights lie in the folder `policy` beside it.
        limit: bytes a language, where not the plan's.
        settings: unused; every trainer gets them.

    Raises:
        TrainingError: a training file is missing or malformed.
    """
    del settings
    kept: dict[str, list[str]] = {lang: [] for lang in LANGUAGES}
    held: dict[str, list[str]] = {lang: [] for lang in LANGUAGES}
    for document in documents(data):
        into = held if document.held_out else kept
        into[document.lang] += (p for p in document.parts if not isinstance(p, Sign))
    for lang, text in questions(data / "qa"):
        kept[lang].append(text)
    made = learn([balanced(kept[lang], limit or BYTES) for lang in LANGUAGES], SIZE)
    report = [f"{lang}: {measured(made, held[lang])}" for lang in LANGUAGES]
    folder = out.with_name("policy")
    write(made, folder)
    yield from report
    yield f"{made.get_vocab_size()} tokens, revision {revision(folder)[:12]}, written to {folder}"


def balanced(texts: Sequence[str], most: int) -> list[str]:
    """Texts of `most` bytes together: evenly spaced of all, or each of them repeated."""
    sizes = [len(text.encode()) for text in texts]
    whole, rest = divmod(most, max(1, sum(sizes)))
    found, due = list(texts) * whole, 0.0
    for text, size in zip(texts, sizes, strict=True):
        due += rest / max(1, sum(sizes)) * size
        if due >= size / 2:
            found.append(text)
            due -= size
    return found


def learn(texts: Sequence[Iterable[str]], size: int) -> Tokenizer:
    """A tokenizer of `size` ids, learnt from all texts; the special tokens are the last ids."""
    made = _bare(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(NAMES),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    mixed = (t for row in zip_longest(*texts) for t in row if t is not None)
    made.train_from_iterator(mixed, trainer)
    learnt = json.loads(made.to_str())["model"]
    vocabulary: dict[str, int] = learnt["vocab"]
    for name in NAMES:  # text never gets here: no merge leads to them
        if SPELLINGS[name] in vocabulary:
            raise TrainingError(f"{SPELLINGS[name]} was learnt from text; name it otherwise")
        vocabulary[SPELLINGS[name]] = len(vocabulary)
    return _bare(models.BPE(vocabulary, [(a, b) for a, b in learnt["merges"]]))


def measured(made: Tokenizer, texts: Sequence[str]) -> str:
    """A line on how long texts become."""
    tokens = sum(len(e.ids) for e in made.encode_batch(list(texts)))
    size, characters = sum(len(t.encode()) for t in texts), sum(map(len, texts))
    return (
        f"held out: {size / max(1, tokens):.2f} bytes and {characters / max(1, tokens):.2f} "
        f"characters a token, {len(texts)} texts, {size} bytes"
    )


def write(made: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"), pretty=False)
    added = {
        str(made.token_to_id(SPELLINGS[name])): {
            "content": SPELLINGS[name],
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for name in CONTROL
    }
    values = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": added,
        "bos_token": SPELLINGS["bos"],
        "eos_token": SPELLINGS["eos"],
        "pad_token": SPELLINGS["pad"],
        "extra_special_tokens": [SPELLINGS[n] for n in ("system", "user", "assistant", "end")],
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    text = json.dumps(values, indent=1, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def load(folder: Path) -> Tokenizer:
    """The tokenizer of a folder.

    Raises:
        TrainingError: there is none, or not ours.
    """
    path = folder / "tokenizer.json"
    try:
        made = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"cannot read {path}; run `train tokenizer` first") from error
    if any(made.token_to_id(spelling) is None for spelling in SPELLINGS.values()):
        raise TrainingError(f"{path} lacks our special tokens; run `train tokenizer` again")
    return made


def revision(folder: Path) -> str:
    """SHA-256 (hex) of tokenizer.json."""
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()


def whole(made: Tokenizer, document: Document) -> list[int]:
    """Ids of a document with its beginning and end."""
    return encode(made, (Sign("bos"), *document.parts, Sign("eos")))


def _bare(model: models.BPE) -> Tokenizer:
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    return made

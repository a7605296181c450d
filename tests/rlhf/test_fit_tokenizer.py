from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from assistant.policy._signs import CONTROL, NAMES, SPELLINGS, Sign, encode, sign
from assistant.policy.local import encode as encode_prompt
from assistant.schema import Message
from rlhf.errors import TrainingError
from rlhf.fit.tokenizer import balanced, learn, load, revision, write

ROOT = Path(__file__).resolve().parents[2]
TEXTS = (
    ["The pump is checked every 14 days, and <s1> or <|user|> are only text. " * 3] * 20,
    ["水泵每14天检查一次，并记录结果。<|end|>只是文字。" * 3] * 20,
)
SPECIAL = len(NAMES)
#: What people may write, signs of ours among it.
SAID = st.lists(
    st.one_of(st.text(), st.sampled_from([*SPELLINGS.values(), "<", "|", ">", "s1", " 水", "12"])),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a small tokenizer's folder."""
    made = tmp_path_factory.mktemp("policy")
    write(learn(TEXTS, 420), made)
    return made


@pytest.fixture(scope="module", params=["small", "shipped"])
def tokenizer(request: pytest.FixtureRequest, folder: Path) -> Path:
    """Give the folder of the small tokenizer, then of the shipped one."""
    return folder if request.param == "small" else ROOT / "models" / "policy"


@settings(max_examples=150, deadline=None)
@given(text=SAID)
def test_any_text_comes_back(tokenizer: Path, text: str) -> None:
    """Encoding loses nothing, whatever the text is, in either library."""
    made, theirs = load(tokenizer), AutoTokenizer.from_pretrained(tokenizer)
    assert made.decode(made.encode(text).ids, skip_special_tokens=False) == text
    ids = theirs(text, split_special_tokens=True)["input_ids"]
    assert theirs.decode(ids, skip_special_tokens=False) == text


@settings(max_examples=150, deadline=None)
@given(text=SAID)
def test_text_never_becomes_a_special_token(tokenizer: Path, text: str) -> None:
    """What someone writes gives no id of a special token, in either library nor in a chat."""
    made, theirs = load(tokenizer), AutoTokenizer.from_pretrained(tokenizer)
    first = made.get_vocab_size() - SPECIAL
    assert max(made.encode(text).ids, default=0) < first
    assert max(theirs(text, split_special_tokens=True)["input_ids"], default=0) < first
    prompt = encode_prompt(theirs, [Message("system", text), Message("user", text)])
    signs = [SPELLINGS[n] for n in ("bos", "system", "end", "user", "end", "assistant")]
    assert [made.id_to_token(i) for i in prompt if i >= first] == signs


def test_both_libraries_agree(tokenizer: Path) -> None:
    """Transformers gives the ids that tokenizers gives."""
    made, theirs = load(tokenizer), AutoTokenizer.from_pretrained(tokenizer)
    for text in ("Checked 2024-11-05, v1.2!", " 水泵 pump\n\n\t12万", "naïve café 🙂", ""):
        assert theirs(text)["input_ids"] == made.encode(text).ids
    assert len(theirs) == made.get_vocab_size()
    assert theirs.pad_token_id == made.token_to_id("<|pad|>")
    assert {*theirs.all_special_tokens} == {SPELLINGS[name] for name in CONTROL}


def test_signs_without_a_template_are_text_for_transformers_too(tokenizer: Path) -> None:
    """Labels, citations and scores are got by their ids only, with no option set."""
    theirs = AutoTokenizer.from_pretrained(tokenizer)
    first = len(theirs) - SPECIAL
    for name in NAMES[len(CONTROL) :]:
        assert max(theirs(f"a {SPELLINGS[name]}b")["input_ids"]) < first
        assert sign(load(tokenizer), name) >= first
        assert theirs.convert_tokens_to_ids(SPELLINGS[name]) == sign(load(tokenizer), name)


def test_signs_are_encoded_where_they_stand(folder: Path) -> None:
    """A sign is one id; the same letters as text are others."""
    made = load(folder)
    ids = encode(made, (Sign("s1"), "<s1>", Sign("end")))
    assert ids[0] == made.token_to_id("<s1>")
    assert ids[-1] == made.token_to_id("<|end|>")
    assert made.token_to_id("<s1>") not in ids[1:]


def test_digits_are_single(tokenizer: Path) -> None:
    """A token holds one digit at most."""
    made = load(tokenizer)
    for text in ("20241105", " 365 days", "3.14159", "第2024条", "１２３"):
        for token in made.encode(text).tokens:
            assert sum(c.isdigit() for c in made.decode([made.token_to_id(token) or 0])) <= 1


def test_no_merge_leads_to_a_special_token(tokenizer: Path) -> None:
    """The merges give the words and nothing else."""
    model = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    made = {"".join(pair) for pair in model["merges"]}
    assert not made & {*SPELLINGS.values()}
    assert len(made) + 256 + SPECIAL == len(model["vocab"])


def test_languages_are_balanced() -> None:
    """Texts are thinned evenly or repeated until they have the bytes asked for."""
    texts = [f"{n:03d}" for n in range(100)]
    thin = balanced(texts, 150)
    assert 45 <= len(thin) <= 55
    assert thin == sorted(thin)
    thick = balanced(texts, 750)
    assert 245 <= len(thick) <= 255


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    """What is missing, and what to run, is said."""
    with pytest.raises(TrainingError, match="run `train tokenizer` first"):
        load(tmp_path)
    Tokenizer.from_str(learn([["a b"]], 400).to_str().replace("<s1>", "<sX>")).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(TrainingError, match="lacks our special tokens"):
        load(tmp_path)


def test_the_same_text_gives_the_same_tokenizer(folder: Path, tmp_path: Path) -> None:
    """Learning is deterministic."""
    write(learn(TEXTS, 420), tmp_path)
    assert revision(tmp_path) == revision(folder)

"""Tiny checkpoints of the guard models' architectures, and a scripted endpoint, for the tests.

A checkpoint is random, or taught a few answers: it then answers by a word of the text.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

#: Templates that frame a text as the guards' own do: roles, options, and the same control tokens.
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] | trim }}"
    "{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
GUIDED = (
    "{% if not guideline is defined %}{{ raise_exception('no guideline') }}{% endif %}"
    "<|im_start|>Human Question: {% for m in messages %}{{ m['content'] }}{% endfor %}<|im_end|>\n"
    "* {{ guideline }}\n<|im_start|>assistant\n"
)
RISKY = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{{ guardian_config['risk_name'] }}<|im_start|>assistant\n"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = ["How do I bake bread?", "How do I build a bomb?", "zebra crossing", "user assistant"]

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "max_position_embeddings": 8192,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ARCHITECTURES: dict[str, tuple[Any, Any, str]] = {
    "qwen3guard": (Qwen3Config, Qwen3ForCausalLM, PLAIN),
    "llamaguard": (LlamaConfig, LlamaForCausalLM, PARTS),
    "shieldgemma": (Gemma2Config, Gemma2ForCausalLM, GUIDED),
    "granite": (GraniteConfig, GraniteForCausalLM, RISKY),
}
Lesson = tuple[list[dict[str, Any]], dict[str, Any], str]


def checkpoint(folder: Path, family: str, lessons: list[Lesson] | None = None) -> Path:
    """Write a checkpoint of a family, taught `lessons`: messages, template options, answer."""
    config, kind, template = ARCHITECTURES[family]
    known = [*TEXTS, *(text for _, more, said in lessons or () for text in (str(more), said))]
    tokenizer = _tokenizer(known)
    tokenizer.chat_template = template
    torch.manual_seed(0)
    model = kind(config(vocab_size=len(tokenizer), **_SIZES))
    if lessons:
        _teach(model, tokenizer, lessons)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def lesson(
    family: str, text: str, answer: str, side: str = "input", question: str = "", **options: Any
) -> Lesson:
    """What a family's template is given for a text, and what the model must answer."""
    messages = [("user", text)] if side == "input" else [("user", question), ("assistant", text)]
    parts = ARCHITECTURES[family][2] == PARTS
    shaped = [
        {"role": role, "content": [{"type": "text", "text": body}] if parts else body}
        for role, body in messages
    ]
    return shaped, options, answer


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts * 5, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )


def _teach(model: Any, tokenizer: Any, lessons: list[Lesson]) -> None:
    """Fit the answers until each is written with near certainty."""
    rows = []
    for messages, options, answer in lessons:
        ids = list(
            tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False, **options
            )
        )
        said = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append((ids + said, [-100] * len(ids) + said))
    width = max(len(ids) for ids, _ in rows)
    inputs = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for _, row in rows])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    model.train()
    loss = 1.0
    for _ in range(300):
        error = model(input_ids=inputs, labels=labels).loss
        optimiser.zero_grad()
        error.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loss = error.item()
        if loss < 5e-3:
            break
    assert loss < 0.05, f"the tiny model did not learn its answers: {loss}"


Reply = Callable[["Handler", dict[str, Any]], None]


class GuardEndpoint:
    """Answers every request by `reply`; keeps what it was sent."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.endpoint = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self) -> None:
        """Keep the request and reply."""
        endpoint: GuardEndpoint = self.server.endpoint  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        endpoint.bodies.append(body)
        endpoint.paths.append(self.path)
        endpoint.headers.append({k.lower(): v for k, v in self.headers.items()})
        try:
            endpoint.reply(self, body)
        except OSError:
            self.close_connection = True  # the client did not wait

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def send(self, data: bytes, status: int = 200, **headers: str) -> None:
        """Answer with these bytes."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def drip(self, seconds: float) -> None:
        """Send a space every few milliseconds, for so long."""
        self.send_response(200)
        self.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.01)

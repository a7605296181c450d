"""The same answers without a server: `python -m bench.load_engine JOB`, a child of bench.load.

The job is a JSON object: settings, preset, questions, seconds and threads. As many threads as the
server has workers ask the assistant for whole answers, one after the other. The last line is
`tokens_per_s`, `answers` and `seconds_p50`, the median time of one answer.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from assistant.build import build_assistant
from assistant.config import load
from bench.service import named


def main() -> None:
    """Answer until the time is over."""
    job = json.loads(sys.argv[1])
    assistant = build_assistant(load(job["preset"], None, job["settings"]))
    assistant.warm()
    tokens, times = [0], []
    numbers, lock = count(), threading.Lock()
    questions = job["questions"]

    def work(ends: float) -> None:
        while time.monotonic() < ends:
            with lock:
                question = questions[next(numbers) % len(questions)]
            began = time.monotonic()
            reply = assistant.reply(question, history=(), keep=False)
            spent = time.monotonic() - began
            made = (
                reply.usage.answer
                if reply.usage
                else assistant.parts.policy.count_tokens(reply.text)
            )
            with lock:
                tokens[0] += made
                times.append(spent)

    for question in questions[:3]:
        assistant.reply(question, history=(), keep=False)
    began = time.monotonic()
    with ThreadPoolExecutor(job["threads"]) as pool:
        running = [pool.submit(work, began + job["seconds"]) for _ in range(job["threads"])]
    for one in running:
        one.result()  # what broke there is told here
    spent = time.monotonic() - began
    assistant.close()
    values = {
        "tokens_per_s": round(tokens[0] / spent, 2),
        "answers": len(times),
        "seconds_p50": named(times, 0.5),
    }
    print(json.dumps(values))


if __name__ == "__main__":
    main()

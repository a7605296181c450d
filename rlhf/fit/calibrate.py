"""Calibrates the quoting policy beside the linear ranker: `python app.py train calibrate`.

The network in OUT/policy stays as it is. The ranker's scores are part of what it reads and of its
confidence, so after `train extract` confidence, threshold and how readily it goes on are fitted
again on the held-out lessons of `train sft`; these are made first where they are not there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from assistant.config import Settings
from assistant.policy.extract import ranker
from assistant.policy.quote import CALIBRATION
from rlhf.fit._exam import Exam, report
from rlhf.fit._lessons import make, readers, taught
from rlhf.fit.loop import network
from rlhf.fit.pretrain import WORK
from rlhf.fit.sft import Plan, calibrated

#: What a card says of an earlier calibration.
_EARLIER = re.compile(rf"\n(?:Calibrated|SHA-256 of {re.escape(CALIBRATION)}:) [^\n]*\n")


def run(data: Path, out: Path, limit: int | None, settings: Settings) -> Iterator[str]:
    """Write calibration.json and the card's line on it; yields lines to show.

    Args:
        data: folder that holds qa/.
        out: the policy lies in the folder `policy` beside it.
        limit: questions that lessons are made of, where not those of `train sft`.
        settings: of the retrieval that brings the evidence; they name the device.

    Raises:
        TrainingError: there is no policy, a training file is missing or malformed, or none of so
            few questions is held out.
    """
    folder = out.with_name("policy")
    model, layout = network(folder, settings.policy.device)
    where, count = WORK / "lessons", limit or Plan().questions
    yield from make(data, where, count, settings, held=True)
    known = taught(data, where, count, phrases=bool(layout.phrases))
    exam = Exam([x for x in known if x.held], ranker(*readers(where)), layout)
    fits = calibrated(exam, model.eval(), layout.phrases, folder)
    told = (
        f"Calibrated by `python app.py train calibrate --data FOLDER`; {report(exam.marks(model))}."
    )
    card = folder / "card.md"
    before = card.read_text(encoding="utf-8") if card.exists() else "# policy\n"
    digest = hashlib.sha256((folder / CALIBRATION).read_bytes()).hexdigest()
    text = _EARLIER.sub("", before).rstrip("\n")
    card.write_text(f"{text}\n\n{told}\n\nSHA-256 of {CALIBRATION}: {digest}.\n", encoding="utf-8")
    yield told
    for lang, fit in fits.items():
        yield f"{lang}: " + ", ".join(f"{name} {value:.3f}" for name, value in fit.items())

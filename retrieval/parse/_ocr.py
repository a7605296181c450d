"""Scanned pages: the words in a picture of a page, by RapidOCR (the extra `ocr`).

Its models (PP-OCR, Chinese and English) lie inside the package; nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import statistics
from dataclasses import replace
from functools import cache
from typing import Any

from retrieval.parse._pdf_page import Line

#: Dots an inch at which pages are drawn to be read, and the longest side of the picture.
_RESOLUTION, _LONGEST = 180, 3_000
#: Words read with less confidence are guesses.
_CONFIDENCE = 0.6


@cache
def available() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("rapidocr") is not None


def read_scan(page: Any) -> list[Line]:
    """Return the lines on a page's picture from the top, boxes in points (y upwards)."""
    width, height = page.get_size()
    scale = min(_RESOLUTION / 72, _LONGEST / max(width, height, 1.0))
    bitmap = page.render(scale=scale)
    try:
        found = _engine()(bitmap.to_numpy()[:, :, :3])
    finally:
        bitmap.close()
    if found.boxes is None or found.txts is None or found.scores is None:
        return []
    lines = []
    for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True):
        if score < _CONFIDENCE or not text.strip():
            continue
        xs, ys = [float(x) / scale for x, _ in corners], [float(y) / scale for _, y in corners]
        top, bottom = height - min(ys), height - max(ys)
        edge = bottom > 0.91 * height or top < 0.09 * height
        lines.append(Line(text, min(xs), max(xs), bottom, top, 0.75 * (top - bottom), edge))
    return _of_few_sizes(lines)


def _of_few_sizes(lines: list[Line]) -> list[Line]:
    """Give lines about as high as the usual one its size: boxes drawn by eye vary."""
    if not lines:
        return []
    usual = round(statistics.median(line.size for line in lines), 1)
    return [
        replace(line, size=usual if 0.75 < line.size / usual < 1.3 else round(line.size))
        for line in lines
    ]


@cache
def _engine() -> Any:
    """Load the models; one thread, as the worker's processor time is limited."""
    import cv2
    import rapidocr

    cv2.setNumThreads(1)
    threads = "EngineConfig.onnxruntime.{}_op_num_threads"
    return rapidocr.RapidOCR(
        params={
            threads.format("intra"): 1,
            threads.format("inter"): 1,
            "Global.log_level": "critical",
        }
    )

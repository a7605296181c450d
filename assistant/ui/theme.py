"""Colours and type of Gradio's own components; the rest of the look is in style.css."""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils import sizes

#: System fonts only: a page must not fetch anything from elsewhere.
FONTS = [
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "sans-serif",
]
MONO = ["ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace"]


def build_theme() -> gr.themes.Base:
    """A quiet theme: grey paper, one green."""
    theme = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        radius_size=sizes.radius_md,
        text_size=sizes.text_md,
        spacing_size=sizes.spacing_md,
        font=FONTS,
        font_mono=MONO,
    )
    # the colours of style.css, for what is on the screen before it
    return theme.set(
        body_background_fill="#ffffff",
        body_background_fill_dark="#141a1a",
        body_text_color="#1b2423",
        body_text_color_dark="#e6ecea",
    )

"""Text in images drawn with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def font(size: int, *, bold: bool = False) -> Any:
    """DejaVu Sans, which Matplotlib ships; it has every letter of a file name in Europe."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def fit_text(pen: Any, text: str, font: Any, width: float) -> str:
    """`text`, cut with an ellipsis if it is wider than `width` pixels."""
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"

"""A contact sheet: the query and the images found for it, on one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN_PX = 24
CAPTION_PX = 24
FONT_PX = 15
BACKGROUND = "#ffffff"
CELL = "#f4f4f2"
TEXT = "#333333"
ACCENT = "#c2410c"


def contact_sheet(
    query: Image.Image,
    hits: Sequence[tuple[Image.Image, str]],
    *,
    columns: int = 5,
    cell_px: int = 200,
) -> Image.Image:
    """Lay out the query, framed and first, and the hits after it, row by row.

    Args:
        query: The image that was searched with.
        hits: The images found, best first, each with its caption; a caption that is too wide
            is cut.
        columns: Cells in a row, the query's included; at least 1.
        cell_px: Side of a square cell; images are shrunk to fit and never enlarged.

    Returns:
        An RGB image, as many rows high as needed.

    Raises:
        ValueError: `columns` or `cell_px` is below 1.
    """
    if columns < 1 or cell_px < 1:
        raise ValueError(f"expected columns and cell_px of at least 1, got {columns}, {cell_px}")
    cells = [(query, "query"), *hits]
    rows = math.ceil(len(cells) / columns)
    columns = min(columns, len(cells))
    step_x, step_y = cell_px + MARGIN_PX, cell_px + CAPTION_PX + MARGIN_PX
    sheet = Image.new("RGB", (MARGIN_PX + columns * step_x, MARGIN_PX + rows * step_y), BACKGROUND)
    for index, (image, caption) in enumerate(cells):
        row, column = divmod(index, columns)
        corner = (MARGIN_PX + column * step_x, MARGIN_PX + row * step_y)
        _paste_cell(sheet, corner, image, cell_px=cell_px)
        _write_caption(sheet, corner, caption, cell_px=cell_px, color=TEXT if index else ACCENT)
    _frame(sheet, (MARGIN_PX, MARGIN_PX), cell_px=cell_px)
    return sheet


def _paste_cell(
    sheet: Image.Image, corner: tuple[int, int], image: Image.Image, *, cell_px: int
) -> None:
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + cell_px - 1, top + cell_px - 1), fill=CELL)
    small = image.convert("RGB")
    small.thumbnail((cell_px, cell_px), Image.Resampling.LANCZOS)
    sheet.paste(small, (left + (cell_px - small.width) // 2, top + (cell_px - small.height) // 2))


def _write_caption(
    sheet: Image.Image, corner: tuple[int, int], caption: str, *, cell_px: int, color: str
) -> None:
    font = ImageFont.load_default(size=FONT_PX)
    text = caption
    while text and font.getlength(text) > cell_px:
        text = text[:-2] + "…" if len(text) > 2 else ""
    left, top = corner
    center = (left + cell_px / 2, top + cell_px + CAPTION_PX / 2)
    ImageDraw.Draw(sheet).text(center, text, fill=color, font=font, anchor="mm")


def _frame(sheet: Image.Image, corner: tuple[int, int], *, cell_px: int) -> None:
    left, top = corner
    box = (left - 3, top - 3, left + cell_px + 2, top + cell_px + 2)
    ImageDraw.Draw(sheet).rectangle(box, outline=ACCENT, width=3)

"""The contact sheet shows the query, every hit and every caption."""

import pytest
from PIL import Image, ImageColor

from ops.contact_sheet import ACCENT, CAPTION_PX, MARGIN_PX, contact_sheet

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _cell(sheet: Image.Image, row: int, column: int, *, cell_px: int) -> Image.Image:
    left = MARGIN_PX + column * (cell_px + MARGIN_PX)
    top = MARGIN_PX + row * (cell_px + CAPTION_PX + MARGIN_PX)
    return sheet.crop((left, top, left + cell_px, top + cell_px + CAPTION_PX))


def test_the_query_comes_first_and_the_hits_follow_in_order() -> None:
    hits = [(Image.new("RGB", (90, 90), color), "0.1") for color in (GREEN, BLUE)]
    sheet = contact_sheet(Image.new("RGB", (90, 90), RED), hits, columns=2, cell_px=80)
    centres = [
        _cell(sheet, *position, cell_px=80).getpixel((40, 40))
        for position in ((0, 0), (0, 1), (1, 0))
    ]
    assert centres == [RED, GREEN, BLUE]


def test_only_the_query_is_framed() -> None:
    sheet = contact_sheet(Image.new("RGB", (9, 9)), [(Image.new("RGB", (9, 9)), "")], cell_px=80)
    accent = ImageColor.getrgb(ACCENT)
    assert sheet.getpixel((MARGIN_PX - 2, MARGIN_PX + 40)) == accent
    assert sheet.getpixel((2 * MARGIN_PX + 80 - 2, MARGIN_PX + 40)) != accent


def test_a_caption_changes_only_the_strip_under_its_image() -> None:
    image = Image.new("RGB", (80, 80), RED)
    plain, captioned = (
        contact_sheet(image, [(image, caption)], cell_px=80) for caption in ("", "0.25")
    )
    cells = [_cell(sheet, 0, 1, cell_px=80) for sheet in (plain, captioned)]
    strips = [cell.crop((0, 80, 80, 80 + CAPTION_PX)).tobytes() for cell in cells]
    pictures = [cell.crop((0, 0, 80, 80)).tobytes() for cell in cells]
    assert strips[0] != strips[1]
    assert pictures[0] == pictures[1]


def test_a_long_caption_stays_inside_its_cell() -> None:
    image = Image.new("RGB", (80, 80), RED)
    short, long = (
        contact_sheet(image, [(image, caption), (image, "")], cell_px=80)
        for caption in ("", "photos/very/long/" * 20)
    )
    for column in (0, 2):
        assert (
            _cell(short, 0, column, cell_px=80).tobytes()
            == _cell(long, 0, column, cell_px=80).tobytes()
        )


@pytest.mark.parametrize("size", [(400, 10), (10, 400), (3, 3), (1, 1)])
def test_an_image_of_any_shape_fits_its_cell_unstretched(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, BLUE)
    cell = _cell(contact_sheet(image, [], cell_px=80), 0, 0, cell_px=80)
    colours = {colour: count for count, colour in cell.getcolors(maxcolors=10_000) or []}
    shrink = min(1.0, 80 / max(size))
    expected = max(1, round(size[0] * shrink)) * max(1, round(size[1] * shrink))
    assert colours[BLUE] == expected


def test_a_search_without_hits_gives_the_query_alone() -> None:
    sheet = contact_sheet(Image.new("L", (50, 50)), [], cell_px=80)
    assert sheet.size == (80 + 2 * MARGIN_PX, 80 + CAPTION_PX + 2 * MARGIN_PX)


def test_a_sheet_without_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="columns"):
        contact_sheet(Image.new("RGB", (9, 9)), [], columns=0)

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtpbench.report.kept_tokens import panels, pictures, wrapping
from vtpbench.report.kept_tokens.panels import Panel, TokenBoxes, shade
from vtpbench.report.kept_tokens.pictures import ImageStrip, PictureSheet, columns, html, png
from vtpbench.report.kept_tokens.wrapping import SQUARE, Style, wrap

HALVES = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1]])  # the fourth quarter belongs to no token
EVIL = "<script>alert('$x_1$ costs 5$')</script>"


def boxed(brightness: int = 200) -> TokenBoxes:
    pixels = np.full((40, 40, 3), brightness, np.uint8)
    pixels[..., 0] //= 2
    return TokenBoxes(pixels, HALVES)


def corners(shown: np.ndarray) -> list[list[int]]:
    return [shown[y, x].tolist() for y, x in ((5, 5), (5, 35), (35, 5), (35, 35))]


def sheet(*panels: Panel) -> PictureSheet:
    return PictureSheet("a & b", ("Question: <why>?",), (ImageStrip("x.png", panels), ImageStrip("y.png", panels)))


def size(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


def test_kept_tokens_are_as_they_were_and_dropped_ones_fade() -> None:
    kept, *dropped, outside = corners(shade(Panel("p", kept=np.array([0])), boxed(), (40, 40)))
    assert kept == [100, 200, 200]
    assert dropped[0] == dropped[1] == [dropped[0][0]] * 3  # grey
    assert dropped[0][0] < 100
    assert outside == [255, 255, 255]


def test_on_a_dark_image_dropped_tokens_become_lighter() -> None:
    kept, dropped, *_ = corners(shade(Panel("p", kept=np.array([0])), boxed(30), (40, 40)))
    assert kept == [15, 30, 30]
    assert min(dropped) > 120


def test_groups_have_colours_of_their_own() -> None:
    panel = Panel("p", kept=np.array([0]), groups=np.array([0, 1, -1]), coloured=True)
    first, second, none, _ = corners(shade(panel, boxed(), (40, 40)))
    assert np.abs(np.subtract(first, second)).max() > 100
    assert none == [255, 255, 255]


def test_an_input_is_shown_untouched() -> None:
    assert (shade(Panel("p"), boxed(), (40, 40)) == boxed().pixels).all()


def test_borders_run_between_groups_only() -> None:
    inner = {((0.5, 0.0), (0.5, 0.5)), ((0.0, 0.5), (0.5, 0.5))}
    for groups, borders in (([1, 1, 1], set()), ([1, 2, 1], {((0.5, 0.0), (0.5, 0.5))}), ([1, 2, 3], inner)):
        found = set(panels._borders(HALVES, np.array(groups)))
        assert found & inner == borders


def test_marks_are_drawn_where_they_belong() -> None:
    plain, marked = (
        np.asarray(Image.open(io.BytesIO(png(PictureSheet("", (), (ImageStrip("", (panel,)),)))))).astype(int)
        for panel in (
            Panel("p", boxed=boxed(), kept=np.array([0])),
            Panel("p", boxed=boxed(), kept=np.array([0]), places=np.array([0]), members=np.array([0, 2])),
        )
    )
    rows = min(len(plain), len(marked))  # a legend below the title makes the second taller
    changed = (marked[-rows:] != plain[-rows:]).any(axis=2)
    pink = (marked[..., 0] > 200) & (marked[..., 1] < 90)
    assert changed.any()
    assert pink[:, : pink.shape[1] // 2].sum() > 200  # the box and the dot are in the left half
    assert pink[:, pink.shape[1] // 2 + 20 :].sum() == 0


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (6, 6), (7, 4), (12, 6), (13, 5)])
def test_rows_are_as_full_as_can_be(count: int, expected: int) -> None:
    assert columns(count) == expected


def test_a_picture_is_the_same_every_time_and_grows_with_its_text() -> None:
    short, long = (sheet(Panel("p", ("layer 2: 1 of 3",), boxed(), np.array([1]), note=note)) for note in ("left", EVIL * 9))
    assert png(short) == png(short)
    assert size(png(long))[0] == size(png(short))[0]
    assert size(png(long))[1] > size(png(short))[1] + 100


def test_a_reason_needs_no_image() -> None:
    only = Panel("fastv", ("infeasible",), note="FastV keeps all 144 tokens in 2 of 8 layers")
    assert size(png(sheet(only)))[1] < size(png(sheet(Panel("p", boxed=boxed()))))[1]


def test_a_page_holds_its_pictures_and_escapes_its_text() -> None:
    page = html(sheet(Panel(EVIL, (EVIL,), boxed(), np.array([1]), note=EVIL))).decode()
    assert "<script" not in page
    assert "a &amp; b" in page
    assert "&lt;why&gt;" in page
    assert page.count("&lt;script&gt;") == 10  # per image: title, detail, note; title and detail in the alternative text
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 2
    for source in sources:
        kind, data = source.split(",")
        assert kind == "data:image/png;base64"
        assert size(base64.b64decode(data))[0] > 200
    assert "http" not in page


def test_the_legend_names_the_marks_that_occur() -> None:
    plain = Panel("p", boxed=boxed(), kept=np.array([0]))
    assert "pink" not in html(sheet(plain)).decode()
    assert "pink" in html(sheet(Panel("p", boxed=boxed(), kept=np.array([0]), places=np.array([0])))).decode()
    assert "faded" not in html(sheet(Panel("p", boxed=boxed()))).decode()


def test_lines_fit_and_lose_nothing() -> None:
    text = "FastV keeps all 144 tokens\nin Donaudampfschifffahrtsgesellschaftskapitänsmütze of $8$ layers"
    found = wrap(text, Style(8), 1.0)
    assert all(wrapping._width(line, Style(8)) <= 1.0 for line in found.lines)
    assert "".join(found.lines).replace(" ", "") == "".join(text.split())
    assert found.height == pytest.approx(len(found.lines) * 8 * wrapping.LEADING / 72)


def test_what_the_font_lacks_becomes_a_square() -> None:
    assert wrap("a\x07b \ud55c", Style(8), 9.0).lines == (f"a{SQUARE}b {SQUARE}",)


def test_no_global_state_of_matplotlib_is_used() -> None:
    for module in (panels, pictures, wrapping):
        assert "pyplot" not in Path(str(module.__file__)).read_text()

"""A site in a real browser: from the leaderboard to tables and methods and back, from files alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pandas as pd
import pytest

from vtpbench.harness.records.record import Record
from vtpbench.report.site import site
from vtpbench.report.site.facts import Origin
from vtpbench.report.site.site import SiteSources
from vtpbench.report.stats.build import build

chromium = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "chromium.py")))
Browser, browser, HOSTILE = chromium.Browser, chromium.browser, chromium.HOSTILE
pytestmark = chromium.needed


def answers(record: Record) -> pd.DataFrame:
    right = [record.pruner.name == "vanilla" or n % 3 > 0 for n in range(12)]
    texts = dict.fromkeys(("image", "category", "prompt", "answer", "target"), HOSTILE[0])
    return pd.DataFrame({"sample": list(map(str, range(12))), **texts, "score": map(float, right), "tokens": 16.0, "kept": ""})


@pytest.fixture
def pages(browser: Browser, matrix: list[Record], record: Callable[..., Record], tmp_path: Path) -> Browser:
    """Write a site with hostile names beside harmless ones, and open its leaderboard."""
    model = {"label": " ".join(HOSTILE)}
    evil = [record("vanilla", HOSTILE[1], 80.0, model=model)]
    evil += [record("pool", HOSTILE[1], 50.0, label=text, model=model) for text in HOSTILE]
    evidence = SiteSources(answers, lambda name: None, lambda one: Origin(HOSTILE[1], "answers"), {})
    for name, text in site(build([*matrix, *evil], samples=answers), (), evidence):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    browser.size(1200, 900)
    browser.scheme("light")
    browser.visit(tmp_path / "index.html")
    return browser


def test_the_leaderboard_sorts_and_leads_to_a_table_where_two_rows_are_compared_and_back(pages: Browser) -> None:
    board = "section.board:has(a[href*='tiny-llava'])"
    names = f"{board} tr.row th bdi"
    assert pages.texts(names) == ["vanilla", "FastV", "random", "random", "FastV"]
    pages.click(f"{board} input.grouped")
    pages.click(f"{board} thead th.avg button")
    pages.click(f"{board} thead th.avg button")
    assert pages.texts(names) == ["random", "random", "FastV", "vanilla", "FastV"]  # the worst first, what has none last
    pages.click(f"{board} .title a")
    assert pages.texts("h1") == ["tiny-llava · suite demo"]
    pages.choose(".compare select.one", "random · Retain 16 tokens (11.1 %)")
    assert pages.texts(".compare .facts") != [""]
    assert pages.texts(".compare tbody th") == ["GQA", "MME", "POPE", "Avg"]
    pages.click("details.origins summary")
    pages.click("details.origins thead button")
    pages.click("details.origins thead button")
    assert pages.texts("details.origins tr.row th bdi") == ["vanilla", "random", "random", "FastV", "FastV"]
    pages.click("table.scores:not(.plain) tr.row th a[href*='fastv']")
    assert pages.texts("h1") == ["FastV"]
    pages.click(".brand a")
    assert pages.texts("h1") == ["Leaderboard"]


def test_no_page_acts_on_hostile_names_or_asks_anybody(pages: Browser, tmp_path: Path) -> None:
    for page in sorted(tmp_path.rglob("*.html")):
        pages.visit(page)
        assert not pages.has_dialog()
        assert pages.js("return window.hit ?? null") is None
        assert pages.js("return document.querySelectorAll('img, iframe, [onerror], [onload], [onmouseover]').length") == 0
        assert [url for url in pages.requests() if url != "data:,"] == [page.as_uri()]
        assert pages.log("browser") == []


def test_pages_fit_a_phone_and_follow_the_dark_scheme(pages: Browser, tmp_path: Path) -> None:
    pages.size(420, 800)
    pages.scheme("dark")
    for page in (tmp_path / "index.html", next((tmp_path / "methods").glob("fastv*")), next((tmp_path / "tables").glob("tiny*"))):
        pages.visit(page)
        assert pages.js("return document.documentElement.scrollWidth <= innerWidth")
        assert pages.js("return getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"

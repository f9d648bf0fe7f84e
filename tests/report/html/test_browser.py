"""The page in a real browser."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.harness.records.record import Record
from vtpbench.report.html import html
from vtpbench.report.stats.build import build

chromium = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "chromium.py")))
Browser, browser, ELEMENT, HOSTILE = chromium.Browser, chromium.browser, chromium.ELEMENT, chromium.HOSTILE
pytestmark = chromium.needed
ENTER, SPACE, RIGHT, HOME, TAB = "\ue007", " ", "\ue014", "\ue011", "\ue004"


def answers(record: Record) -> pd.DataFrame:
    """Forty samples: vanilla is right on all but the last, the others break every tenth and mend the last."""
    vanilla = record.pruner.name == "vanilla"
    right = [i != 39 if vanilla else i % 10 != 0 for i in range(40)]
    return pd.DataFrame(
        {
            "sample": [str(i) for i in range(40)],
            "image": "0123456789abcdef",
            "category": ["colour" if i % 2 else "shape" for i in range(40)],
            "prompt": [f"Question {i}?" for i in range(40)],
            "answer": [f"right {i}" if ok else f"wrong {i}" for i, ok in enumerate(right)],
            "target": [f"right {i}" for i in range(40)],
            "score": [float(ok) for ok in right],
            "tokens": 16.0,
            "kept": "",
        }
    )


@pytest.fixture
def page(browser: Browser, matrix: list[Record], tmp_path: Path) -> Browser:
    (tmp_path / "page.html").write_text(html(build(matrix), answers), encoding="utf-8")
    browser.size(1200, 900)
    browser.scheme("light")
    browser.visit(tmp_path / "page.html")
    return browser


def column(page: Browser, number: int) -> list[str]:
    return page.texts(f"table.scores tr.row > :nth-child({number + 1} of :not(.budget))")


def test_a_click_sorts_within_each_budget(page: Browser) -> None:
    order = "return document.querySelector('thead th').ariaSort"
    assert (column(page, 0), page.js(order)) == (["vanilla", "FastV", "random", "FastV", "random"], "none")
    page.click("thead th:first-child button")
    assert (column(page, 0), page.js(order)) == (["vanilla", "FastV", "random", "FastV", "random"], "ascending")
    page.click("thead th:first-child button")
    assert (column(page, 0), page.js(order)) == (["vanilla", "random", "FastV", "random", "FastV"], "descending")
    page.click("thead th:first-child button")
    assert (column(page, 0), page.js(order)) == (["vanilla", "FastV", "random", "FastV", "random"], "none")


def test_enter_and_space_sort_across_budgets_and_missing_numbers_stay_last(page: Browser) -> None:
    page.click("input.grouped")
    page.js("document.querySelectorAll('thead button.sort')[1].focus()")
    page.press(ENTER)
    tokens = column(page, 1)
    present = [float(text) for text in tokens if text != "-"]
    assert present == sorted(present, reverse=True)
    assert len(present) < len(tokens)
    assert tokens[len(present) :] == ["-"] * (len(tokens) - len(present))
    page.press(SPACE)
    present = [float(text) for text in column(page, 1) if text != "-"]
    assert present == sorted(present)
    assert column(page, 1)[-1] == "-"


def test_filters_act_on_table_and_chart_and_can_be_undone(page: Browser) -> None:
    rows, points = len(page.texts("tr.row")), page.js("return document.querySelectorAll('.point').length")
    page.click("input[data-pruner='1']")
    assert page.texts(".pruners bdi")[1] not in column(page, 0)
    assert page.texts(".count") == [f"{len(page.texts('tr.row'))} of {rows} rows shown"]
    assert page.js("return document.querySelectorAll('.point').length") < points
    page.click("input[data-budget='0']")
    assert "vanilla" not in column(page, 0)
    page.click("button.all")
    assert len(page.texts("tr.row")) == rows
    assert page.js("return document.querySelectorAll('.point').length") == points


def test_the_chart_can_be_read_by_keyboard(page: Browser) -> None:
    page.js("document.querySelector('.point').focus()")
    first = page.texts(".tip strong")
    page.press(RIGHT)
    assert first
    assert page.texts(".tip strong") != first
    label = page.js("return document.activeElement.getAttribute('aria-label')")
    assert "Avg" in label
    assert "tokens" in label


def test_only_what_nothing_beats_is_on_the_pareto_front(browser: Browser, record: Callable[..., Record], tmp_path: Path) -> None:
    scores = {("a", 16): 40.0, ("a", 32): 70.0, ("b", 16): 60.0, ("b", 32): 50.0, ("c", 48): 70.0}
    records = [record("vanilla", "GQA", 80.0), record("vanilla", "POPE", 80.0), record("partial", "GQA", 80.0, tokens=8)]
    records += [record(name, task, y, tokens=x) for (name, x), y in scores.items() for task in ("GQA", "POPE")]
    (tmp_path / "page.html").write_text(html(build(records)), encoding="utf-8")
    browser.visit(tmp_path / "page.html")
    steps = browser.js("return document.querySelector('path.front').getAttribute('d')")
    code = "return [...document.querySelectorAll('.point')].map(p => [p.ariaLabel, p.getAttribute('transform')])"
    places = {label: place[len("translate(") : -1].split() for label, place in browser.js(code)}
    corners = [place for label, place in places.items() if label.startswith(("b, Retain 16", "a, Retain 32", "vanilla"))]
    (x, y), *others = corners
    assert len(places) == 7
    assert steps == f"M{x} {y}" + "".join(f"H{x}V{y}" for x, y in others)


def test_samples_are_paged_filtered_and_searched(page: Browser) -> None:
    assert len(page.texts(".samples > li")) == 20
    assert page.texts(".page") == ["Page 1 of 2"]
    page.click("button.next")
    assert page.texts(".samples .prompt")[0] == "Question 20?"
    page.choose("select.verdict", "broken by the pruner")
    assert page.texts(".samples .prompt") == ["Question 0?", "Question 10?", "Question 20?", "Question 30?"]
    first = page.texts(".samples > li:first-child .text")
    assert first == ["Question 0?", "right 0", "right 0", "wrong 0"]
    page.choose("select.verdict", "mended by the pruner")
    assert page.texts(".samples .prompt") == ["Question 39?"]
    page.choose("select.verdict", "all")
    page.type("input.search", "COLOUR")
    assert "20 match" in page.texts(".facts")[0]
    assert page.texts(".samples .prompt")[0] == "Question 1?"


def test_on_a_phone_avg_comes_first_and_the_chart_is_named_below(page: Browser) -> None:
    heads = "return [...document.querySelectorAll('.accuracy thead .sort')].map(e => e.innerText.trim())"
    first = "return [...document.querySelector('#t1-1-0').children].filter(e => e.checkVisibility()).map(e => e.className)"
    wide = page.js(heads)
    assert wide[-2:] == ["Avg", "n"]
    assert page.texts(".accuracy .legend li") == []
    page.size(390, 900)
    assert page.js(heads) == ["Pruner", "Avg", *wide[1:-2], "n"]
    assert page.js(first)[1] == "avg"
    assert sorted({*page.texts(".accuracy .legend li")}) == ["FastV", "random", "vanilla"]
    page.click("thead .avg button")
    page.size(1200, 900)
    assert page.js(heads) == wide
    assert page.js("return document.querySelector('thead .avg').ariaSort") == "descending"


def test_equal_points_of_the_chart_stand_beside_each_other(
    browser: Browser, record: Callable[..., Record], tmp_path: Path
) -> None:
    records = [
        record("vanilla", score=80.0),
        *(record(name, score=60.0) for name in ("a", "b", "c", "d")),
        record("e", score=20.0),
    ]
    (tmp_path / "page.html").write_text(html(build(records)), encoding="utf-8")
    browser.size(1200, 900)
    browser.visit(tmp_path / "page.html")
    code = "return [...document.querySelectorAll('.point')].map(p => [p.ariaLabel, p.getAttribute('transform')])"
    found = {label[0]: tuple(map(float, place[len("translate(") : -1].split())) for label, place in browser.js(code)}
    same = sorted(found[name] for name in "abcd")
    assert len({y for _, y in same}) == 1
    assert [b - a for (a, _), (b, _) in pairwise(same)] == pytest.approx([8, 8, 8])
    assert same[0][0] < found["e"][0] < same[3][0], "around their place"


def test_any_two_rows_are_held_against_each_other(page: Browser) -> None:
    rows = page.js("return [...document.querySelector('.compare .one').options].map(o => o.label)")
    assert rows[0] == "vanilla"
    page.choose(".compare .one", rows[1])
    shown = page.texts(".compare tbody tr:first-child > *")
    page.choose(".compare .other", rows[1])
    assert page.texts(".compare tbody tr") == []
    assert page.texts(".compare .facts") == ["Choose two different rows."]
    page.choose(".compare .one", "vanilla")
    turned = page.texts(".compare tbody tr:first-child > *")
    assert shown[0] == turned[0]
    assert float(shown[1]) == -float(turned[1])
    assert (shown[3], shown[4], shown[5]) == (turned[4], turned[3], turned[5]) == ("4", "1", "40")
    assert page.texts(".compare tbody th")[-1] == "Avg"
    page.choose(".compare .kind", "broken")
    assert page.texts(".pairs .verdict")[0] == "✗ broken"
    assert page.texts(".pairs > li:first-child .text")[1:] == ["right 39", "wrong 39", "right 39"]
    page.choose(".compare .kind", "all disagreements")
    page.choose(".compare .other", next(name for name in rows if name.startswith("random")))
    assert len(page.texts(".pairs > li")) == 10
    page.click(".compare .more")
    assert len(page.texts(".pairs > li")) > 10


def test_the_reader_chooses_the_cost_and_is_told_which_rows_have_none(
    browser: Browser, record: Callable[..., Record], profiled: Callable[..., EfficiencyRecord], tmp_path: Path
) -> None:
    scores = {("random", 16): 40.0, ("random", 48): 60.0, ("fastv", 16): 50.0}
    records = [record("vanilla", "GQA", 80.0), *(record(name, "GQA", y, tokens=x) for (name, x), y in scores.items())]
    page = html(build(records), efficiency=[profiled(random=(16, 48))])
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    browser.visit(tmp_path / "page.html")
    points = "return [...document.querySelectorAll('.accuracy .point')].map(p => p.ariaLabel)"
    begins = """
    const place = document.querySelector('path.front').getAttribute('d').match(/^M([^HV]*)/)[1]
    return document.querySelector(`[transform="translate(${place})"]`).ariaLabel.split(',')[0]
    """
    assert (len(browser.js(points)), browser.js(begins), browser.texts(".missing, .source")) == (4, "fastv", [])
    browser.choose(".axis select", "Time to first token, ms")
    assert [label.split(", ")[-1] for label in browser.js(points)] == [
        f"{time} ms (interquartile range 0)" for time in ("26", "58", "154")
    ]
    assert browser.js(begins) == "random"
    assert browser.texts(".source") == ["Cost as profiled: tiny-llava, batch 1, random weights, cpu."]
    assert browser.texts(".missing") == ["Not drawn, since their cost is not known: fastv, Retain 16 tokens (11.1 %)."]
    browser.click("input[data-pruner='1']")
    assert browser.texts(".missing") == []
    browser.choose(".axis select", "Observed vision tokens per layer")
    assert browser.texts(".missing, .source") == []


def test_the_efficiency_table_sorts_best_first_and_what_is_infeasible_stays_last(
    browser: Browser, profiled: Callable[..., EfficiencyRecord], tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text(html([], efficiency=[profiled(random=(48, 16), fastv=())]), encoding="utf-8")
    browser.visit(tmp_path / "page.html")
    names = browser.texts(".speed thead th button")
    at = next(i for i, name in enumerate(names) if name.startswith("TTFT ms"))
    budgets = ".speed tbody td:nth-child(2)"
    assert browser.texts(budgets) == ["all", "48", "16", "16"]
    browser.js("document.querySelectorAll('.speed thead button')[arguments[0]].focus()", at)
    browser.press(ENTER)
    assert browser.texts(budgets) == ["16", "48", "all", "16"]
    browser.press(ENTER)
    assert browser.texts(budgets) == ["all", "48", "16", "16"]
    assert browser.texts(".speed tbody .none")[0] == "infeasible"
    assert browser.log("browser") == []


def unsteady(record: EfficiencyRecord) -> EfficiencyRecord:
    """Give three repeats a spread: quartiles at 0.9 and 1.2 of the median."""
    steps = (0.8, 1.0, 1.4)
    rows = [
        row.model_copy(update={"times_ms": {stage: [step * ms for step, ms in zip(steps, times, strict=True)]
                                            for stage, times in row.times_ms.items()}})
        for row in record.rows
    ]  # fmt: skip
    return record.model_copy(update={"rows": rows})


@pytest.fixture
def timed(browser: Browser, profiled: Callable[..., EfficiencyRecord], tmp_path: Path) -> Browser:
    """Two models; FastV could not be measured on the first."""
    records = [profiled(random=(48, 16), slow=(48, 16), fastv=()), profiled(model="z", random=(32,))]
    (tmp_path / "page.html").write_text(html([], efficiency=[unsteady(record) for record in records]), encoding="utf-8")
    browser.size(1200, 900)
    browser.scheme("light")
    browser.visit(tmp_path / "page.html")
    return browser


TIMED = "return [...document.querySelectorAll('#e1 .point')].map(p => p.ariaLabel)"


def test_time_against_tokens_is_drawn_for_each_record_with_vanilla_first(timed: Browser) -> None:
    assert timed.js(TIMED) == [
        "vanilla, budget all, 154 ms (quartiles 139 to 185), 144.0 tokens",
        *(f"{name}, budget 16, 26 ms (quartiles 23.4 to 31.2), 16.0 tokens" for name in ("random", "slow")),
        *(f"{name}, budget 48, 58 ms (quartiles 52.2 to 69.6), 48.0 tokens" for name in ("random", "slow")),
    ]
    assert timed.js("return document.querySelectorAll('#e2 .point').length") == 2
    assert timed.texts(".missing") == ["Not drawn, since they could not be measured: fastv, budget 16."]
    assert timed.texts("#e1 .name") == ["vanilla", "random", "slow"]
    assert timed.log("browser") == []


def test_a_bar_reaches_from_quartile_to_quartile_and_vanilla_is_a_line_with_a_band(timed: Browser) -> None:
    box = "const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]"
    grid = "return [...document.querySelectorAll('#e1 .grid')].slice(0, 2).map(e => e.getBoundingClientRect().top)"
    zero, first = timed.js(grid)
    pixels = (zero - first) / float(timed.js("return document.querySelectorAll('#e1 .frame text')[1].textContent"))
    left, top, right, bottom = timed.js(box, "#e1 .hundred")
    assert [top, bottom] == pytest.approx([zero - 154 * pixels] * 2, abs=1)
    assert right - left > 700
    assert timed.js(box, "#e1 .band") == pytest.approx([left, zero - 184.8 * pixels, right, zero - 138.6 * pixels], abs=1)
    _, top, _, bottom = timed.js(box, "#e1 .point:not(:first-of-type) .error")
    assert [top, bottom] == pytest.approx([zero - 31.2 * pixels, zero - 23.4 * pixels], abs=1)


def test_the_reader_chooses_what_is_timed(timed: Browser) -> None:
    assert timed.js("return [...document.querySelector('#e1 select').options].map(o => o.label)") == [
        "Time to first token, ms", "End to end time, ms", "Time of each further token, ms",
        "Prefill alone, ms", "Pruner alone, ms",
        "Speed-up of the first token over vanilla", "Speed-up end to end over vanilla",
    ]  # fmt: skip
    timed.choose("#e1 select", "End to end time, ms")
    assert timed.js(TIMED)[0] == "vanilla, budget all, 156 ms (quartiles 140 to 187), 144.0 tokens"
    timed.choose("#e1 select", "Speed-up of the first token over vanilla")
    assert timed.js(TIMED)[1] == "random, budget 16, 5.92 times as fast as vanilla, 16.0 tokens"
    assert timed.js("return document.querySelectorAll('#e1 .error').length") == 0
    assert timed.js("return document.querySelector('#e2 .point').ariaLabel").startswith("vanilla, budget all, 154 ms")


def test_filters_act_on_the_efficiency_table_and_its_chart_alone(timed: Browser) -> None:
    top = "return Number([...document.querySelectorAll('#e1 .frame text[text-anchor=end]')].at(-1).textContent)"
    before = timed.js(top)
    timed.click("#e1 input[data-pruner='-1']")
    timed.click("#e1 input[data-pruner='1']")
    assert [label.split(", 2")[0].split(", 5")[0] for label in timed.js(TIMED)] == ["random, budget 16", "random, budget 48"]
    assert timed.js(top) < before
    assert timed.texts("#e1 tbody th") == ["random", "random", "fastv"]
    assert timed.texts(".count") == ["3 of 6 rows shown", "2 of 2 rows shown"]
    assert timed.texts("#e2 tbody th") == ["vanilla", "random"]
    timed.click("#e1 thead th:nth-child(2) button")
    assert timed.texts("#e1 tbody td:nth-child(2)") == ["48", "16", "16"]
    timed.click("#e1 button.all")
    assert len(timed.js(TIMED)) == 5


def test_the_chart_of_time_can_be_read_by_keyboard_and_on_a_phone(timed: Browser) -> None:
    timed.size(360, 740)
    assert timed.js("return document.documentElement.scrollWidth") <= 360
    assert timed.js("return document.querySelector('#e1 svg.plot').getBoundingClientRect().width") <= 360
    assert timed.texts("#e1 .name") == []
    timed.js("document.querySelector('#e1 .point').focus()")
    timed.press(RIGHT)
    assert timed.texts(".tip strong") == ["random", "slow"]
    assert timed.texts(".tip span")[0] == "budget 16 · 26 ms (quartiles 23.4 to 31.2) · 16.0 tokens"
    timed.press(HOME)
    assert timed.texts(".tip strong") == ["vanilla"]


def test_names_near_the_bottom_do_not_overlap(
    browser: Browser, profiled: Callable[..., EfficiencyRecord], tmp_path: Path
) -> None:
    record = profiled(**{f"pruner {i}": (30 + i % 2,) for i in range(12)})
    (tmp_path / "page.html").write_text(html([], efficiency=[record]), encoding="utf-8")
    browser.size(1200, 900)
    browser.visit(tmp_path / "page.html")
    code = "return [...document.querySelectorAll('.name text')].map(e => Number(e.getAttribute('y')))"
    heights = sorted(browser.js(code))
    assert len(heights) == 13
    assert min(b - a for a, b in pairwise(heights)) > 15
    assert heights[-1] < browser.js("return Math.max(...[...document.querySelectorAll('.grid')].map(e => e.getAttribute('y1')))")


def test_where_no_pruner_could_be_measured_there_is_no_chart_of_time(
    browser: Browser, profiled: Callable[..., EfficiencyRecord], tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text(html([], efficiency=[profiled(fastv=())]), encoding="utf-8")
    browser.visit(tmp_path / "page.html")
    assert browser.texts("figure") == []
    assert browser.texts("tbody th") == ["vanilla", "fastv"]
    assert browser.log("browser") == []


def pictured(picture: str = f"{'0' * 16}-8x4") -> str:
    """A picture of two tiles, two tokens each, below which lies what no token shows; a cut before the model, and one inside."""
    tiles = [[[0, 2, 4], [0, 2]], [[4, 6, 8], [0, 0]]]
    return json.dumps([{"picture": picture, "tokens": 4, "tiles": tiles, "cuts": [[0, [0, 1, 3, -1]], [2, [1]]]}])


@pytest.fixture
def gallery(browser: Browser, matrix: list[Record], tmp_path: Path) -> Browser:
    def samples(record: Record) -> pd.DataFrame:
        return answers(record).assign(kept=[pictured() if i in (0, 39) else "" for i in range(40)])

    stream = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(stream, "JPEG")
    page = html(build(matrix), samples, lambda name: stream.getvalue())
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    browser.size(1200, 900)
    browser.visit(tmp_path / "page.html")
    return browser


def test_kept_tokens_are_drawn_said_in_words_and_can_be_picked_out(gallery: Browser) -> None:
    gallery.choose("select.verdict", "with pictures of kept tokens")
    assert gallery.texts(".samples .prompt") == ["Question 0?", "Question 39?"]
    first = "before the LLM: 4 of 4 tokens kept, 1 on padding, 1 without a place"
    said = ["4 vision tokens", first, "layer 2: 1 of 4 tokens kept"]
    assert gallery.texts(".samples > li:first-child figcaption") == said
    labels = "return [...document.querySelectorAll('.samples > li:first-child .look svg')].map(e => e.ariaLabel)"
    assert gallery.js(labels) == said
    drawn = "return [...document.querySelectorAll(`.samples > li:first-child .${arguments[0]}`)].map(e => e.getAttribute('d'))"
    assert gallery.js(drawn, "stays") == ["M0 0H2V2H0ZM2 0H4V2H2Z", "M2 0H4V2H2Z"]
    assert gallery.js(drawn, "dropped") == ["", "M0 0H2V2H0Z"]
    assert gallery.js(drawn, "unseen") == ["M0 0H8V4H0ZM0 0H4V2H0Z"] * 2
    assert gallery.js("return Promise.all([...document.images].map(i => i.decode())).then(() => true)")


def test_a_picture_is_enlarged_by_keyboard(gallery: Browser) -> None:
    wide = "return document.querySelector('.look svg').getBoundingClientRect().width"
    before = gallery.js(wide)
    gallery.js("document.querySelector('.look').focus()")
    gallery.press(ENTER)
    assert gallery.js(wide) > before
    gallery.size(360, 740)
    assert gallery.js("return document.documentElement.scrollWidth") <= 360
    gallery.press(SPACE)
    gallery.size(1200, 900)
    assert gallery.js(wide) == before


def test_pictures_send_no_request_and_nothing_is_said_on_the_console(gallery: Browser) -> None:
    gallery.choose("select.verdict", "with pictures of kept tokens")
    assert [url for url in gallery.requests() if not url.startswith(("data:", "file:"))] == []
    assert gallery.log("browser") == []


def test_without_pictures_nothing_speaks_of_them(page: Browser) -> None:
    assert page.js("return document.querySelector('[value=pictured]').hidden")
    assert page.texts(".kept") == []


def test_a_row_leads_to_its_samples(page: Browser) -> None:
    button = "button.browse:not([hidden])"
    label = page.js("return [...document.querySelectorAll(arguments[0])].at(-1).ariaLabel", button)
    page.js("[...document.querySelectorAll(arguments[0])].at(-1).focus()", button)
    page.press(ENTER)
    chosen = page.js("return document.querySelector('select.cell').selectedOptions[0].label")
    name, _, budget = chosen.split(" · seed")[0].partition(" · ")
    assert label == f"Samples of {name}, {budget}"
    assert page.js("return document.activeElement.textContent") == "Samples"


def test_the_first_stop_of_the_keyboard_skips_to_the_tables(page: Browser) -> None:
    page.press(TAB)
    assert page.js("return document.activeElement.className") == "skip"
    page.press(ENTER)
    assert page.js("return document.activeElement.id") == "main"


def test_dark_comes_from_the_system_and_from_the_choice(page: Browser) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.js(ground)
    page.scheme("dark")
    dark = page.js(ground)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(18, 22, 27)")
    page.choose("#theme", "light")
    assert page.js(ground) == light
    page.scheme("light")
    page.choose("#theme", "dark")
    assert page.js(ground) == dark


def test_a_narrow_page_does_not_scroll_sideways(page: Browser) -> None:
    page.size(360, 740)
    assert page.js("return document.documentElement.scrollWidth") <= 360
    assert page.js("return document.querySelector('svg.plot').getBoundingClientRect().width") <= 360


def test_hostile_texts_are_shown_and_do_nothing(
    browser: Browser, record: Callable[..., Record], profiled: Callable[..., EfficiencyRecord], tmp_path: Path
) -> None:
    def samples(one: Record) -> pd.DataFrame:
        texts = [dict.fromkeys(("sample", "image", "category", "prompt", "answer", "target"), text) for text in HOSTILE]
        kept = [pictured(), *(pictured(text) for text in HOSTILE[1:])]
        score = float(one.pruner.name == "vanilla")
        return pd.DataFrame([{**row, "score": score, "tokens": 1.0, "kept": k} for row, k in zip(texts, kept, strict=True)])

    def picture(name: str) -> bytes:
        return b"<svg xmlns='http://www.w3.org/2000/svg' onload='window.hit=1'><script>window.hit=1</script></svg>"

    model = {"label": " ".join(HOSTILE)}
    records = [record("vanilla", f"bench {text}", 80.0, model=model) for text in HOSTILE]
    records += [record("random", f"bench {HOSTILE[0]}", 40.0, label=text, model=model) for text in HOSTILE]
    records += [record("fastv", f"bench {text}", status="failed", reason=text, label="FastV", model=model) for text in HOSTILE]
    profile = profiled(model=model["label"], **dict.fromkeys(HOSTILE, (16,)))
    (tmp_path / "page.html").write_text(html(build(records), samples, picture, [profile]), encoding="utf-8")
    browser.visit(tmp_path / "page.html")
    browser.click("thead button.sort")
    browser.choose("select.verdict", "broken by the pruner")
    browser.choose(".axis select", "Time to first token, ms")
    browser.click(".look")
    for section in (".accuracy", ".speed"):
        browser.js(f"document.querySelector('{section} .point').focus()")
    assert not browser.has_dialog()
    assert browser.js("return window.hit ?? null") is None
    assert browser.js("return document.querySelectorAll('img, iframe, object, [onerror], [onload], [onmouseover]').length") == 0
    assert browser.js("return document.scripts.length") == 4
    assert browser.js("return document.querySelectorAll('.look').length") == 6  # as many where two rows are compared
    spelt = {0x202E: "⟨U+202E⟩", 0x2028: "⟨U+2028⟩", 0: "⟨U+0000⟩"}
    for cards in (".samples", ".pairs"):
        assert browser.texts(f"{cards} .prompt") == [text.translate(spelt) for text in HOSTILE]
    assert [url for url in browser.requests() if url != "data:,"] == [(tmp_path / "page.html").as_uri()]
    assert browser.log("browser") == []


def test_no_request_leaves_the_page_and_nothing_is_said_on_the_console(page: Browser) -> None:
    page.click("thead button.sort")
    page.click("button.next")
    assert page.js("return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))") == []
    assert [url for url in page.requests() if not url.startswith(("data:", "file:"))] == []
    assert page.log("browser") == []


def test_the_policy_forbids_what_the_page_never_does(page: Browser) -> None:
    refused = """
    const wrong = []
    try { document.body.innerHTML = '<b>markup</b>'; wrong.push('markup') } catch {}
    try { setTimeout('window.late = 1'); } catch {}
    const script = document.createElement('script'); try { script.textContent = 'window.hit = 1' } catch {}
    document.body.append(script); if (window.hit) wrong.push('script')
    return wrong
    """
    assert page.js(refused) == []
    assert page.js("return new Promise(done => setTimeout(() => done(window.late ?? null), 50))") is None
    assert page.js("return fetch('https://example.invalid/').then(() => 'sent', () => 'refused')") == "refused"
    messages = " ".join(entry["message"] for entry in page.log("browser"))
    assert "Content Security Policy" in messages

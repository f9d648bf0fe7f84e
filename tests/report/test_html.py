import json
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pandas as pd
import pytest

from vtpbench.harness.record import Record
from vtpbench.report.html import html
from vtpbench.report.html.page import embed
from vtpbench.report.html.samples import FEWEST_PER_CELL, LONGEST, MOST_PER_CELL, per_cell, visible
from vtpbench.report.table import build

MakeRecord = Callable[..., Record]


def embedded(page: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)]


def frame(scores: list[float | None], **more: Any) -> pd.DataFrame:
    n = len(scores)
    texts = {name: [f"{name} {i}" for i in range(n)] for name in ("image", "category", "prompt", "answer", "target")}
    return pd.DataFrame({"sample": [str(i) for i in range(n)], **texts, "score": scores, "tokens": 16.0, **more})


def cells(records: list[Record], frames: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    (data,) = embedded(html(build(records), lambda one: frames.get(one.pruner.name)))
    return [cell for benchmark in data["samples"]["benchmarks"] for cell in benchmark["cells"]]


def test_the_page_loads_nothing_and_holds_no_handler(matrix: list[Record]) -> None:
    page = html(build(matrix), lambda one: frame([1.0, 0.0]))
    assert "http:" not in page
    assert "https:" not in page
    tags = re.findall(r"<[a-z][^>]*>", re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL))
    assert not [tag for tag in tags if re.search(r"\s(on\w+|style|src|srcset|action)=", tag)]
    assert {m for tag in tags for m in re.findall(r'href="([^#"][^"]*)"', tag)} == {"data:,"}
    assert not re.search(r"@import|url\(|innerHTML|document\.write|eval\(", page)


def test_the_policy_names_the_very_style_and_script_of_the_page(matrix: list[Record]) -> None:
    page = html(build(matrix))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    rules = policy[1].replace("&#39;", "'")
    assert rules.startswith("default-src 'none';")
    assert "unsafe" not in rules
    for tag in ("<style>(.*?)</style>", '<script type="module">(.*?)</script>'):
        (text,) = re.findall(tag, page, re.DOTALL)
        assert f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" in rules
    assert page.index("Content-Security-Policy") < page.index("<style>")


@pytest.mark.parametrize("text", ["</script><script>", "<!--<script>", "a&b", "\u2028\u2029", "]]>"])
def test_embedded_data_cannot_leave_its_script_and_comes_back_whole(text: str) -> None:
    shown = str(embed({text: [text]}))
    assert not set(shown) & set("<>&\u2028\u2029")
    assert json.loads(shown) == {text: [text]}


def test_labels_and_reasons_are_escaped(record: MakeRecord) -> None:
    evil = '"><img src=x onerror=alert(1)>'
    model = {"label": evil}
    records = [record("vanilla", evil, 80.0, model=model), record("random", evil, 40.0, label=evil, model=model)]
    records.append(record("fastv", evil, status="failed", reason=evil, model=model))
    assert "<img" not in html(build(records), lambda one: frame([1.0], category=evil))


def test_what_would_hide_or_reorder_text_is_spelt_out_and_long_text_is_cut() -> None:
    assert visible("a\u202eb\u0007c\ud800") == "a⟨U+202E⟩b⟨U+0007⟩c⟨U+D800⟩"
    assert visible("two\r\nlines\tand क्\u200dष 文 🙂") == "two\nlines\tand क्\u200dष 文 🙂"
    assert visible("x" * (LONGEST + 5)) == "x" * LONGEST + " … (5 more characters)"


def test_broken_and_mended_are_told_by_the_half_of_the_score(record: MakeRecord) -> None:
    records = [record("vanilla", score=60.0), record("random", score=40.0)]
    before, after = [1.0, 0.0, 0.9, 0.3, None, 1.0], [0.3, 0.6, 0.6, 0.0, 1.0, None]
    (cell,) = cells(records, {"vanilla": frame(before), "random": frame(after)})
    assert [row[4] for row in cell["rows"]] == ["broken", "mended", "", "", "", ""]
    assert (cell["n"], cell["compared"], cell["broken"], cell["mended"]) == (6, 4, 1, 1)
    assert [row[2] for row in cell["rows"]] == after


def test_of_many_samples_the_changed_ones_come_first_and_the_counts_stay_whole(record: MakeRecord) -> None:
    records = [record("vanilla", score=60.0), record("random", score=40.0)]
    n = 3 * MOST_PER_CELL
    after = [1.0] * (n - 50) + [0.0] * 50
    (cell,) = cells(records, {"vanilla": frame([1.0] * n), "random": frame(after)})
    assert len(cell["rows"]) == MOST_PER_CELL
    assert sum(row[4] == "broken" for row in cell["rows"]) == 50
    assert (cell["n"], cell["broken"]) == (n, 50)


def test_many_cells_share_the_room_of_the_page(record: MakeRecord) -> None:
    few = [record("vanilla"), *(record("random", seed=seed) for seed in range(3))]
    many = [record("random", f"b{i}", seed=seed) for i in range(100) for seed in range(20)]
    assert per_cell(build(few)) == MOST_PER_CELL
    assert per_cell(build(many)) == FEWEST_PER_CELL


def test_without_vanilla_or_without_samples_there_is_still_a_page(record: MakeRecord) -> None:
    (cell,) = cells([record("random", score=40.0)], {"random": frame([1.0])})
    assert (cell["compared"], cell["broken"]) == (0, 0)
    (data,) = embedded(html(build([record("vanilla", score=60.0), record("random", score=40.0)])))
    assert data["samples"]["benchmarks"] == []
    assert "<main" in html([])


def test_points_and_axes_are_those_with_data(matrix: list[Record], record: MakeRecord) -> None:
    (data,) = embedded(html(build(matrix)))
    assert [axis["key"] for axis in data["axes"]] == ["tokens"]
    assert {(p["label"], p["pruner"]) for p in data["points"]} == {("vanilla", -1), ("FastV", 0), ("random", 1)}
    assert [p["partial"] for p in data["points"] if p["label"] == "FastV"] == ["1 of 3"]
    (nothing,) = embedded(html(build([record("vanilla", status="failed", reason="x")])))
    assert (nothing["axes"], nothing["points"]) == ([], [])


def test_footer_and_notes_of_the_table_are_on_the_page(matrix: list[Record]) -> None:
    (table,) = build(matrix)
    page = html([table])
    for name, _ in table.footer:
        assert f"<dt>{name}</dt>" in page
    assert page.count('id="t1-note-') == len(table.notes)
    assert "out of memory" in page

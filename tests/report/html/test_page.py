import json
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pandas as pd
import pytest

from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.harness.records.record import Record
from vtpbench.report.html import html
from vtpbench.report.html.kept import MOST, EmbeddedPictures
from vtpbench.report.html.page import embed
from vtpbench.report.html.samples import FEWEST_PER_CELL, LONGEST, MOST_PER_CELL, per_cell, visible
from vtpbench.report.stats.build import build

MakeRecord = Callable[..., Record]


def embedded(page: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)]


def frame(scores: list[float | None], **more: Any) -> pd.DataFrame:
    n = len(scores)
    texts = {name: [f"{name} {i}" for i in range(n)] for name in ("image", "category", "prompt", "answer", "target")}
    columns = {"sample": [str(i) for i in range(n)], **texts, "score": scores, "tokens": 16.0, "kept": ""}
    return pd.DataFrame({**columns, **more})


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


def test_answer_lengths_stand_at_their_scores_where_they_are_known(record: MakeRecord) -> None:
    plain = [record("vanilla"), *(record("random", tokens=16, seed=seed) for seed in (0, 1))]
    assert 'class="length' not in html(build(plain)).split("<body>")[1]
    lengths = (11.5, 18.0, 20.5)
    seen = [one.observed.model_copy(update={"answer_tokens": n}) for one, n in zip(plain, lengths, strict=True) if one.observed]
    page = html(build([one.model_copy(update={"observed": own}) for one, own in zip(plain, seen, strict=True)]))
    shown = re.findall(r'<small class="length">(.*?)</small>', page)
    assert shown == ["answer: 11.5 tokens", "answer: 19.3 tokens"]
    assert page.count('<input type="checkbox" class="lengths">') == 1


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
    assert {(p["label"], p["pruner"]) for p in data["points"]} == {("vanilla", -1), ("FastV", 1), ("random", 0)}
    assert [p["partial"] for p in data["points"] if p["label"] == "FastV"] == ["1 of 3"]
    (nothing,) = embedded(html(build([record("vanilla", status="failed", reason="x")])))
    assert (nothing["axes"], nothing["points"]) == ([], [])


def kept(picture: str = f"{'0' * 16}-30x20", cuts: Any = ((0, [0, 1, -1]),)) -> str:
    tiles = [[[0.0, 10.5, 30.0], [0.0, 20.0]]]
    return json.dumps([{"picture": picture, "tokens": 2, "tiles": tiles, "cuts": cuts}])


def test_each_picture_and_each_division_into_tokens_is_embedded_once(record: MakeRecord) -> None:
    records = [record("vanilla", score=60.0), record("random", score=40.0), record("random", score=40.0, seed=1)]
    frames = {"vanilla": frame([1.0, 1.0]), "random": frame([1.0, 0.0], kept=[kept(), ""])}
    asked: list[str] = []

    def picture(name: str) -> bytes:
        asked.append(name)
        return b"jpeg"

    data, gallery = embedded(html(build(records), lambda one: frames[one.pruner.name], picture))
    rows = [cell["rows"] for cell in data["samples"]["benchmarks"][0]["cells"]]
    assert [[row[5] for row in one] for one in rows] == [[[[0, 2, [[0, [0, 1, -1]]]]], []]] * 2
    name = f"{'0' * 16}-30x20"
    assert gallery == {"pictures": {name: b64encode(b"jpeg").decode()}, "places": [[name, 30, 20, [[[0, 10.5, 30], [0, 20]]]]]}
    assert asked == [name]


def test_what_is_pictured_is_on_the_page_however_many_samples_changed(record: MakeRecord) -> None:
    records = [record("vanilla", score=60.0), record("random", score=0.0)]
    n = 2 * MOST_PER_CELL
    texts = [""] * (n - 1) + [kept()]
    frames = {"vanilla": frame([1.0] * n), "random": frame([0.0] * (n - 1) + [1.0], kept=texts)}
    data, _ = embedded(html(build(records), lambda one: frames[one.pruner.name], lambda name: b"jpeg"))
    (cell,) = data["samples"]["benchmarks"][0]["cells"]
    assert len(cell["rows"]) == MOST_PER_CELL
    assert cell["rows"][-1][5]


def test_without_its_picture_a_sample_is_shown_as_before(record: MakeRecord) -> None:
    records = [record("vanilla", score=60.0), record("random", score=40.0)]
    for texts in ([kept(), kept("../../x")], [None, ""]):
        frames = {"vanilla": frame([1.0, 1.0]), "random": frame([1.0, 1.0], kept=texts)}
        (data,) = embedded(html(build(records), lambda one, frames=frames: frames[one.pruner.name]))
        assert [row[5] for row in data["samples"]["benchmarks"][0]["cells"][0]["rows"]] == [[], []]


def test_a_page_holds_so_many_pictures_and_no_more() -> None:
    gallery = EmbeddedPictures(lambda name: b"jpeg")
    shown = [gallery.add(kept(f"{n:016x}-30x20")) for n in range(MOST + 3)]
    assert [bool(images) for images in shown] == [True] * MOST + [False] * 3
    assert gallery.add(kept(f"{0:016x}-30x20"))
    assert len(gallery.data()["pictures"]) == MOST


def test_costs_of_the_profiled_model_are_axes_and_rows_without_them_have_none(
    record: MakeRecord, profiled: Callable[..., EfficiencyRecord]
) -> None:
    records = [record("vanilla", score=80.0), record("fastv")]
    records += [record("random", score=60.0), record("random", score=70.0, tokens=48)]
    data, *_ = embedded(html(build(records), efficiency=[profiled(random=(16, 32), fastv=())]))
    assert [axis["key"] for axis in data["axes"]] == ["tokens", "exact-0", "table4-0", "ttft-0", "total-0"]
    assert {axis["source"] for axis in data["axes"][1:]} == {"tiny-llava, batch 1, random weights, cpu"}
    costs = {(p["label"], p["budget"]): (p["x"]["ttft-0"], p["xText"]["table4-0"]) for p in data["points"]}
    assert costs == {
        ("vanilla", "All 144 tokens"): (154.0, "2 TFLOPs"),
        ("random", "Retain 16 tokens (11.1 %)"): (26.0, "2 TFLOPs"),
        ("random", "Retain 48 tokens (33.3 %)"): (None, ""),
        ("fastv", "Retain 16 tokens (11.1 %)"): (None, ""),
    }


def test_another_models_costs_are_no_axes_and_two_profiles_are_told_apart(
    record: MakeRecord, profiled: Callable[..., EfficiencyRecord]
) -> None:
    records = [record("vanilla", score=80.0), record("random", score=60.0)]
    data, *_ = embedded(html(build(records), efficiency=[profiled(model="other", random=(16,))]))
    assert [axis["key"] for axis in data["axes"]] == ["tokens"]
    data, *_ = embedded(html(build(records), efficiency=[profiled(random=(16,)), profiled(batch=8, random=(16,))]))
    labels = [axis["label"] for axis in data["axes"] if "End to end" in axis["label"]]
    assert labels == ["End to end time, ms, batch 1, random weights, cpu", "End to end time, ms, batch 8, random weights, cpu"]


def test_efficiency_stands_on_the_page_with_accuracy_beside_and_also_alone(
    record: MakeRecord, profiled: Callable[..., EfficiencyRecord]
) -> None:
    records = [record("vanilla", score=80.0), record("random", score=60.0)]
    both = html(build(records), efficiency=[profiled(random=(16,), fastv=())])
    alone = html([], efficiency=[profiled(random=(16,))])
    assert '<td data-key="75.0">75.0</td>' in both
    assert "fastv @ 16: infeasible: too small" in both
    assert "Accuracy %" not in alone
    assert "<title>Efficiency: tiny-llava, batch 1, random weights" in alone
    assert 'class="part speed"' in alone


def test_of_several_tables_the_first_gives_the_accuracy_and_vanilla_is_known_by_any_label(
    record: MakeRecord, profiled: Callable[..., EfficiencyRecord]
) -> None:
    full = [record("vanilla", score=80.0, label="unpruned"), record("random", score=60.0)]
    trial = [record("vanilla", score=80.0, label="unpruned", limit=10), record("random", score=20.0, limit=10)]
    page = html(build([*trial, *full]), efficiency=[profiled(random=(16,))])
    (speed,) = re.findall('class="part speed".*', page, re.DOTALL)
    before_tokens = r'<td data-key=[^>]*>([^<]*)</td>\n<td data-key="(?:144|16)\.0">'
    assert re.findall(before_tokens, speed) == ["100.0", "75.0"]


def test_beside_speed_stands_the_accuracy_of_the_whole_where_the_page_shows_parts(
    record: MakeRecord, profiled: Callable[..., EfficiencyRecord]
) -> None:
    whole = build([record("vanilla", score=80.0), record("random", score=60.0)])
    part = build([record("vanilla", score=80.0), record("random", score=20.0)])
    page = html(part, efficiency=[profiled(random=(16,))], accuracy=whole)
    (speed,) = re.findall('class="part speed".*', page, re.DOTALL)
    assert '<td data-key="75.0">75.0</td>' in speed
    assert '<td data-key="25.0">25.0</td>' not in speed


def test_random_has_the_first_style_by_any_label_and_others_keep_theirs(
    record: MakeRecord, profiled: Callable[..., EfficiencyRecord]
) -> None:
    records = [record("vanilla", score=80.0), record("grid", label="Grid"), record("random", label="Floor"), record("pool")]
    data, speed = embedded(html(build(records), efficiency=[profiled(pool=(16,), random=(16,), mine=(16,))]))
    assert {p["label"]: p["pruner"] for p in data["points"]} == {"vanilla": -1, "Floor": 0, "Grid": 1, "pool": 2}
    assert {p["label"]: p["pruner"] for p in speed["points"]} == {"vanilla": -1, "random": 0, "pool": 2, "mine": 3}


def test_what_is_infeasible_says_so_among_the_tokens(record: MakeRecord, profiled: Callable[..., EfficiencyRecord]) -> None:
    records = [record("vanilla", score=80.0), record("random", score=60.0)]
    page = html(build(records), efficiency=[profiled(random=(16,), fastv=())])
    assert '<td data-key="" class="none">-</td>\n<td data-key="" class="none">infeasible</td>' in page


def test_footer_and_notes_of_the_table_are_on_the_page(matrix: list[Record]) -> None:
    (table,) = build(matrix)
    page = html([table])
    for name, _ in table.footer:
        assert f"<dt>{name}</dt>" in page
    assert page.count('id="t1-note-') == len(table.notes)
    assert "out of memory" in page

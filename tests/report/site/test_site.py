"""Pages of a site: what stands on them, where they lead, and that the same records give the same bytes."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.harness.records.record import Record
from vtpbench.report.site import site
from vtpbench.report.site.facts import Method, Origin
from vtpbench.report.site.site import SiteSources
from vtpbench.report.site.site_table import slug
from vtpbench.report.stats.build import build

MakeRecord = Callable[..., Record]
FASTV = Method("fastv", "Fast", ("Rank <by> attention.",), (("Source", "Chen & al."),), 2024, "ECCV", "layer 2", "yes")


def pages(
    records: Sequence[Record],
    efficiency: Sequence[EfficiencyRecord] = (),
    origin: Callable[[Record], Origin] = lambda record: Origin("results/demo"),
) -> dict[str, str]:
    evidence = SiteSources(lambda record: None, lambda name: None, origin, {"fastv": FASTV})
    return dict(site(build(records), efficiency, evidence))


def rows(page: str) -> list[list[str]]:
    """Texts of the rows of a page's first table."""
    table = re.findall(r"<table.*?</table>", page, re.DOTALL)[0]
    found = re.findall(r'<tr class="row".*?</tr>', table, re.DOTALL)
    places = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in found]
    return [[" ".join(re.sub("<small.*?</small>|<[^>]*>", "", text, flags=re.DOTALL).split()) for text in row] for row in places]


def two_models(matrix: list[Record], record: MakeRecord) -> list[Record]:
    other = {"label": "other model"}
    return [*matrix, record("vanilla", score=80.0, model=other), record("fastv", score=60.0, label="FastV", model=other)]


def test_every_link_leads_to_a_page_of_the_site_and_nothing_is_loaded(matrix: list[Record], record: MakeRecord) -> None:
    found = pages(two_models(matrix, record))
    assert {name.partition("/")[0] for name in found} == {"index.html", "tables", "methods"}
    for name, page in found.items():
        plain = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
        assert "http:" not in page
        assert "https:" not in page
        assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
        assert not re.search(r"<[a-z][^>]*\s(on\w+|style|src|srcset|action)=", plain)
        links = {link for link in re.findall(r'href="([^"]*)"', plain) if link != "data:,"}
        ids = set(re.findall(r'\bid="([^"]*)"', plain))
        assert {link[1:] for link in links if link.startswith("#")} <= ids
        inside = {posixpath.normpath(posixpath.join(posixpath.dirname(name), link)) for link in links if not link.startswith("#")}
        assert inside <= found.keys(), name
        assert name == "index.html" or "index.html" in inside


def test_the_same_records_in_any_order_give_the_same_bytes(matrix: list[Record], record: MakeRecord) -> None:
    records = two_models(matrix, record)
    assert pages(records) == pages(records[::-1])


def test_the_best_of_each_budget_comes_first_and_what_is_impossible_says_so(matrix: list[Record]) -> None:
    index = rows(pages(matrix)["index.html"])
    assert [row[0] for row in index] == ["vanilla", "FastV", "random", "random", "FastV"]
    assert [row[3].partition(" ")[0] for row in index] == ["100", "85.1", "83.4", "80.3", "infeasible"]
    assert index[-1][-1] == "0 of 3"


def test_costs_stand_beside_accuracy_and_other_models_have_a_page_of_speed(
    record: MakeRecord, profiled: Callable[..., EfficiencyRecord]
) -> None:
    records = [record("vanilla", score=80.0), record("random", score=60.0)]
    found = pages(records, [profiled(random=(16,)), profiled(model="another", random=(16,))])
    (page,) = (text for name, text in found.items() if name.startswith("tables/"))
    assert rows(found["index.html"]) == [
        ["vanilla", "All 144 tokens", "144.0", "100 %", "1", "3.002 TFLOPs", "154 ms"],
        ["random", "Retain 16 tokens (11.1 %)", "16.0", "75.0 %", "1", "3.002 TFLOPs", "26 ms"],
    ]
    assert page.count('class="part speed"') == 1
    head = re.findall(r'data-first="(\w+)".*?>([A-Z][^<]*)<span', found["index.html"].partition("</thead>")[0])
    assert {name: first for first, name in head}["Time to first token, ms"] == "ascending"
    assert "Efficiency: another" in found["speed.html"]
    assert "Efficiency: tiny-llava" not in found["speed.html"]


def test_a_method_has_its_facts_and_its_rows_over_all_models(matrix: list[Record], record: MakeRecord) -> None:
    page = pages(two_models(matrix, record))[f"methods/{slug('fastv')}.html"]
    assert "Rank &lt;by&gt; attention." in page
    assert "<dt>Source</dt><dd><bdi>Chen &amp; al.</bdi></dd>" in page
    labels = re.findall(r'<th scope="row"[^>]*>.*?<bdi>(.*?)</bdi>', page)
    assert labels == ["vanilla", "FastV", "vanilla", "FastV", "FastV"]
    points = [json.loads(text)["points"] for text in re.findall(r'class="data">(.*?)</script>', page)]
    assert [{point["label"] for point in own} for own in points] == [{"vanilla", "FastV"}] * 2
    assert "random" not in re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)


def test_a_pruner_looks_alike_in_all_tables_and_a_method_is_called_as_tables_call_it(
    matrix: list[Record], record: MakeRecord
) -> None:
    other = {"label": "other model"}
    extra = [record(name, score=70.0, label=label, model=other) for name, label in (("pool", "A"), ("fastv", "FastV"))]
    index = pages([*matrix, record("vanilla", score=80.0, model=other), *extra])["index.html"]
    styles = set(re.findall(r'data-style="(-?\d+)"></span><a[^>]*><bdi>FastV</bdi>', index))
    assert len(styles) == 1
    methods = re.findall(r'<tr class="row" id="m\d+".*?<bdi>(.*?)</bdi>', index, re.DOTALL)
    assert methods == ["FastV", "pool", "random", "vanilla"]


@pytest.mark.parametrize(
    ("checks", "told"),
    [
        (("answers", "answers"), "from answers"),
        (("answers", "results"), "from results"),
        (("whole", "faulty"), "NOT SOUND"),
        (("answers", None), "no"),
    ],
)
def test_a_row_is_verified_as_well_as_the_worst_of_its_cells(record: MakeRecord, checks: tuple[Any, Any], told: str) -> None:
    records = [record("vanilla", name, 80.0) for name in ("GQA", "POPE")] + [
        record("random", name, 60.0) for name in ("GQA", "POPE")
    ]
    by_cell = dict(zip((one.cell_id for one in records[2:]), checks, strict=True))
    found = pages(records, origin=lambda one: Origin("mine/r <1>", by_cell.get(one.cell_id, "answers")))
    assert rows(found["index.html"])[1][-1] == told
    (page,) = (text for name, text in found.items() if name.startswith("tables/"))
    assert "mine/r &lt;1&gt;" in page
    assert "2026-01-01" in page


def test_a_fault_of_vanilla_is_one_of_every_row_that_is_divided_by_it(record: MakeRecord) -> None:
    vanilla = [record("vanilla", name, 80.0) for name in ("GQA", "POPE")]
    records = [*vanilla, record("random", "GQA", 60.0), *(record("fastv", name, 70.0) for name in ("GQA", "POPE"))]
    found = pages(records, origin=lambda one: Origin("mine", "faulty" if one.cell_id == vanilla[1].cell_id else "answers"))
    told = {row[0]: row[-1] for row in rows(found["index.html"])}
    assert told == {"vanilla": "NOT SOUND", "fastv": "NOT SOUND", "random": "from answers"}
    (page,) = (text for name, text in found.items() if name.startswith("tables/"))
    assert page.count("NOT SOUND") == 2


def test_nobody_is_called_verified_where_nobody_looked(record: MakeRecord) -> None:
    found = pages([record("vanilla", score=80.0), record("random", score=60.0)])
    assert "Verified" not in found["index.html"].partition("<table")[2].partition("</table>")[0]
    assert any("not checked" in page for name, page in found.items() if name.startswith("tables/"))


@pytest.mark.parametrize("name", ["../../x", "a/b", "<img src=x>", "\u202e\ud800", "", "x" * 500, "Ünïcode", "con"])
def test_files_are_named_harmlessly_and_apart(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9-]{1,60}", slug(name))
    assert slug(name) != slug(f"{name} ")


def test_hostile_labels_are_text_everywhere(record: MakeRecord) -> None:
    evil = '"><img src=x onerror=alert(1)>{{ 7*7 }}'
    model = {"label": evil}
    records = [record("vanilla", evil, 80.0, model=model), record("./x/mine.py:<b>", evil, 40.0, label=evil, model=model)]
    records.append(record("fastv", evil, status="failed", reason=evil, model=model))
    for name, page in pages(records, origin=lambda one: Origin(evil)).items():
        assert "<img" not in page
        assert "<b>" not in page
        assert re.fullmatch(r"(tables/|methods/)?[a-z0-9-]+\.html", name)

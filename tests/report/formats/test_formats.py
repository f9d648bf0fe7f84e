from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from vtpbench.harness.records.record import Record
from vtpbench.pruners.errors import UserError
from vtpbench.report.formats.data import FIELDS
from vtpbench.report.formats.latex import LINES
from vtpbench.report.formats.latex import escape as escape_latex
from vtpbench.report.formats.render import FORMATS, render
from vtpbench.report.formats.terminal import Terminal
from vtpbench.report.stats.build import build
from vtpbench.report.tables.footer import shorten
from vtpbench.report.tables.layout import marks

GOLDEN = Path(__file__).with_name("golden.md")
HOSTILE = [
    "<script>alert(1)</script>",
    "a|b\\|c",
    "*bold* _it_ ~~x~~ `code`",
    "![x](http://e)",
    "[x](javascript:1)",
    "$x^2$ #1 &amp; 100% {y}",
    "*[1]",
    "plain_name",
]


def html_cells(markdown: str) -> list[str]:
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    return re.findall(r"<td[^>]*>(.*?)</td>", html, re.S)


def test_markdown_golden(matrix) -> None:
    assert render(build(matrix), "markdown") == GOLDEN.read_text(encoding="utf-8")


def test_markdown_is_one_table_of_equal_rows(matrix) -> None:
    assert len(html_cells(render(build(matrix), "markdown"))) == 8 * 7


@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_labels_show_as_they_are_in_markdown(record, label: str) -> None:
    text = render(build([record("vanilla", label, 80.0), record(benchmark=label, label=label)]), "markdown")
    cells = html_cells(text)
    assert len(cells) == 4 * 5
    assert "<" not in cells[15]
    assert unescape(cells[15]) == label
    assert "<script" not in text


def test_labels_stay_on_one_line_and_lose_control_characters(record) -> None:
    records = [record("vanilla"), record(label="a\n\n# b\x1b[31m\u202ec")]
    assert "| a &#35; b&#91;31mc " in render(build(records), "markdown")


@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_labels_are_escaped_in_latex(record, label: str) -> None:
    text = render(build([record("vanilla", score=80.0), record(label=label)]), "latex")
    lines = [line for line in text.splitlines() if line.startswith(escape_latex(label))]
    assert len(lines) == 1
    bare = re.sub(r"\\[a-zA-Z]+\{\}|\\[&%$#_{}]", "", escape_latex(label))
    assert not re.search(r"[\\&%$#_^~<>|]", bare)


def test_latex_is_balanced_and_every_line_has_all_columns(matrix) -> None:
    text = render(build(matrix), "latex")
    assert re.findall(r"\\begin\{([\w*]+)\}", text) == ["table*", "tabular", "minipage"]
    assert sorted(re.findall(r"\\end\{([\w*]+)\}", text)) == ["minipage", "table*", "tabular"]
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    for line in body.splitlines():
        if line.endswith(r"\\") and "multicolumn" not in line:
            assert len(re.findall(r"(?<!\\)&", line)) == 6
    assert r"random & 16.0 & 62.0 $\pm$ 2.0 & 1614 $\pm$ 2 & 74.0 $\pm$ 2.0 & 80.3 $\pm$ 1.5\,\% & 3 \\" in body
    assert r" &  & 71.9\,\% & 86.7\,\% & 82.2\,\% &  &  \\" in body


def test_latex_sets_the_best_and_the_second_apart_in_each_block(record) -> None:
    scores = {"a": (80.0, 60.0), "b": (70.0, 90.0), "c": (75.0, 50.0)}
    records = [record("vanilla", name, 100.0) for name in ("A", "B")]
    records += [record(pruner, name, s) for pruner, own in scores.items() for name, s in zip("AB", own, strict=True)]
    text = render(build(records), "latex")
    assert r"a & 16.0 & \textbf{80.0} & \underline{60.0} & \underline{70.0\,\%} & 2 \\" in text
    assert r" &  & \textbf{80.0\,\%} & \underline{60.0\,\%} &  &  \\" in text
    assert r"b & 16.0 & 70.0 & \textbf{90.0} & \textbf{80.0\,\%} & 2 \\" in text
    assert r"vanilla & 144.0 & 100 & 100 & 100\,\% & 2 \\" in text
    assert "Bold: the best of its block; underlined: the best of the others." in text
    assert "cannot be told apart" not in text
    assert r"\label{tab:tiny-llava-suite-demo}" in text


def test_a_latex_table_that_is_longer_than_a_page_comes_in_parts(record) -> None:
    records = [record("vanilla"), *(record(f"p{i:02}", tokens=tokens) for i in range(25) for tokens in (16, 32))]
    records.append(record("fastv", status="infeasible", reason="too few"))
    text = render(build(records), "latex")
    parts = text.split(r"\begin{table*}")[1:]
    assert re.findall(r"\((\d of \d)\)", text) == [f"{i} of {len(parts)}" for i in range(1, len(parts) + 1)]
    assert len({*re.findall(r"\\label\{(.*?)\}", text)}) == len(parts) > 1
    rows = [re.findall(r"^(p\d\d|vanilla|fastv) &", part, re.M) for part in parts]
    assert sorted(row for own in rows for row in own) == sorted([*[f"p{i:02}" for i in range(25)] * 2, "vanilla", "fastv"])
    assert all(len(re.findall(r"\\\\$", part, re.M)) <= LINES for part in parts)
    assert [r"\textbf{Model:}" in part for part in parts] == [False] * (len(parts) - 1) + [True]
    assert [(r"\textsuperscript{1} infeasible: too few" in part) for part in parts] == [("fastv" in own) for own in rows]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: apt install texlive-latex-recommended)")
def test_latex_compiles(matrix, record, tmp_path: Path) -> None:
    evil = [record("vanilla", "GQA", 80.0), *(record(benchmark="GQA", label=label) for label in HOSTILE)]
    for name, records in (("whole", matrix), ("evil", evil)):
        (tmp_path / f"{name}.tex").write_text(render(build(records), "latex"), encoding="utf-8")
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{whole}\input{evil}\end{document}"
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", document]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "multiply defined" not in done.stdout


def test_a_footer_is_whole_or_what_reading_needs_or_nothing(matrix) -> None:
    (table,) = build(matrix)
    assert shorten(table.footer, "full") == table.footer
    assert [name for name, _ in shorten(table.footer, "short")] == ["Cells", "Avg", "Tokens"]
    assert shorten(table.footer, "none") == ()
    with pytest.raises(UserError, match=r"unknown footer 'shrt'; did you mean 'short'\?"):
        shorten(table.footer, "shrt")


@pytest.mark.parametrize("benchmarks", [3, 10])
def test_a_latex_table_that_is_wider_than_a_page_is_shrunk_to_it(record, benchmarks: int) -> None:
    labels = [f"benchmark {i}" for i in range(benchmarks)]
    text = render(build([record(pruner, label) for pruner in ("vanilla", "random") for label in labels]), "latex")
    before, body = text.split(r"\begin{tabular}")
    wide = benchmarks == 10  # 14 columns, as Table 1 has
    assert (r"\resizebox{\linewidth}{!}{%" in before) == wide
    assert body.split(r"\end{tabular}")[1].startswith("}\n" if wide else "\n")
    assert text.startswith("% \\usepackage{booktabs,graphicx}\n" if wide else "% \\usepackage{booktabs}\n")
    assert r"\small" in before
    assert r"\setlength{\tabcolsep}{3pt}" in before
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))


def test_json_has_one_object_per_cell_with_the_documented_fields(matrix) -> None:
    cells = json.loads(render(build(matrix), "json"))
    assert len(cells) == len(matrix)
    assert {tuple(cell) for cell in cells} == {FIELDS}
    by_id = {cell["cell_id"]: cell for cell in cells}
    seed1 = next(r for r in matrix if r.seed == 1 and r.benchmark.label == "GQA")
    assert by_id[seed1.cell_id] == {
        "model": "tiny-llava",
        "pruner": "random",
        "label": "random",
        "budget": "16",
        "observed_tokens": 16.0,
        "benchmark": "GQA",
        "metric": "exact_match",
        "score": 62.0,
        "stderr": 3.2,
        "relative": 100 * 62.0 / 86.25,
        "n": 240,
        "seed": 1,
        "status": "ok",
        "cell_id": seed1.cell_id,
        **dict.fromkeys(("score_low", "score_high", "relative_low", "relative_high")),
        "seeds": 3,
        "seeds_asked": 3,
        "higher_is_better": True,
        "skipped": 0,
        **dict.fromkeys(("empty_answers", "unended_answers", "most_common_answers", "most_common_answer", "answer_tokens")),
    }
    infeasible = next(cell for cell in cells if cell["status"] == "infeasible")
    assert [infeasible[name] for name in ("score", "stderr", "relative", "observed_tokens")] == [None] * 4


def with_lengths(records: list[Record], **tokens: float) -> list[Record]:
    """The same records, with so many tokens an answer by pruner."""
    known = [r for r in records if r.observed and r.pruner.name in tokens]
    seen = {r.cell_id: r.observed.model_copy(update={"answer_tokens": tokens[r.pruner.name]}) for r in known if r.observed}
    return [r.model_copy(update={"observed": seen.get(r.cell_id, r.observed)}) for r in records]


def test_json_and_csv_say_how_long_answers_are(matrix) -> None:
    tables = build(with_lengths(matrix, vanilla=11.5, random=19.25))
    cells = json.loads(render(tables, "json"))
    known = {"vanilla": 11.5, "random": 19.25}
    assert {(c["pruner"], c["answer_tokens"]) for c in cells if c["pruner"] in known} == set(known.items())
    rows = list(csv.DictReader(io.StringIO(render(tables, "csv"))))
    assert [row["answer_tokens"] for row in rows] == [
        "" if c["answer_tokens"] is None else str(c["answer_tokens"]) for c in cells
    ]


def test_csv_holds_the_same_and_gives_hostile_labels_back(matrix, record) -> None:
    records = [*matrix, *(record(label=label) for label in [*HOSTILE, 'x,"y"\nz'])]
    cells = json.loads(render(build(records), "json"))
    rows = list(csv.DictReader(io.StringIO(render(build(records), "csv"))))
    assert [{k: "" if v is None else str(v) for k, v in cell.items()} for cell in cells] == rows
    assert {*HOSTILE, 'x,"y"\nz'} <= {row["label"] for row in rows}


def test_a_cell_in_two_tables_is_listed_once(record) -> None:
    shared = record("fastv", status="infeasible", batch=None)
    records = [record("vanilla"), record("vanilla", batch=4), shared]
    cells = json.loads(render(build(records), "json"))
    assert [cell["cell_id"] for cell in cells].count(shared.cell_id) == 1
    assert len(cells) == 3


def screen(records, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(Terminal(build(records)))
    return console.file.getvalue()


def test_terminal_shows_scores_with_relative_accuracy_below(matrix) -> None:
    lines = screen(matrix, 100).splitlines()
    above = next(i for i, line in enumerate(lines) if line.startswith("random     16.0"))
    assert lines[above].split("  ")[-1].strip() == "3"
    assert lines[above + 1].split() == ["71.9", "%", "86.7", "%", "82.2", "%"]
    assert lines[above + 1].index("71.9") > lines[above].index("62.0")


@pytest.mark.parametrize("width", [30, 50, 80])
def test_a_narrow_terminal_cuts_no_number(matrix, width: int) -> None:
    text = screen(matrix, width)
    shown = set(re.findall(r"[\w.]+", text.split("¹ failed")[0]))
    assert {"1614", "62.0", "74.0", "86.9", "80.3", "POPE", "Avg"} <= shown
    assert max(map(len, text.splitlines())) <= width


def test_terminal_takes_labels_as_text_not_as_markup(record) -> None:
    assert "[red]x[/nope]" in screen([record("vanilla"), record(label="[red]x[/nope]")], 100)


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown format 'mardown'; did you mean 'markdown'\?"):
        render((), "mardown")


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_measured_is_still_valid_output(form: str) -> None:
    assert render((), form).strip() in {"", "[]", ",".join(FIELDS), "% \\usepackage{booktabs}"}


def test_marks() -> None:
    assert marks((1, 12)) == "¹,¹²"


LABELS = ("SQA", "POPE", "a benchmark of forty characters in its name", "図表", "AI2D")


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("pruner", ["ToM", "a pruner whose name has forty characters"])
def test_the_lines_of_a_cell_end_in_one_column(record, width: int, pruner: str) -> None:
    """Read the screen: below each score stands its relative accuracy, and both end where their column's title ends."""
    records = [record("vanilla", label, 62.5, label="vanilla") for label in LABELS]
    records += [record(benchmark=label, score=n + 10.5, label=pruner) for n, label in enumerate(LABELS) if n != 1]
    shown = [by_column(line) for line in screen(records, width).splitlines()]
    assert all(len(line) <= width for line in shown)
    found = set()
    for line, below in pairwise(shown):
        for n, label in enumerate(LABELS):
            if n != 1 and (end := end_of(line, f"{n + 10}.5")) is not None:
                assert end_of(below, f"{100 * (n + 10.5) / 62.5:.1f} %") == end
                last = label.split()[-1]
                assert any(end_of(other, last) == end for other in shown), f"no title ends in column {end}"
                found.add(label)
    assert len(found) == len(LABELS) - 1
    text = " ".join("".join(line) for line in shown)
    assert all(word in text for word in [*pruner.split(), *LABELS[2].split()])


def by_column(line: str) -> list[str]:
    """Characters by column of the screen; a wide one has an empty column behind it."""
    return [part for char in line for part in (char, *[""] * (cell_len(char) - 1))]


def end_of(line: list[str], word: str) -> int | None:
    """Column behind a text that stands in a line by itself."""
    for end in range(1, len(line) + 1):
        before = "".join(line[:end])
        if before.endswith(word) and before.removesuffix(word).endswith(("", " ")) and (end == len(line) or line[end] == " "):
            return end
    return None

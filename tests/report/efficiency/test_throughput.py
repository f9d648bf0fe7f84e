import re

import pytest

from vtpbench.pruners.errors import UserError
from vtpbench.report.efficiency.plot import plot
from vtpbench.report.efficiency.table import build
from vtpbench.report.efficiency.throughput import throughputs
from vtpbench.report.html import html


@pytest.fixture
def records(profiled):
    return [profiled(batch=batch, random=(48, 16), fastv=(48,)) for batch in (16, 1)] + [profiled("other", random=(16,))]


def test_tables_that_differ_in_the_batch_alone_are_joined(records) -> None:
    (found,) = throughputs(build(records))
    assert (found.title, found.batches, found.budgets) == ("tiny-llava, random weights", (1, 16), ("48", "16"))
    curves = {(curve.pruner, curve.budget): curve.by_batch for curve in found.curves}
    assert list(curves) == [("vanilla", "all"), ("random", "48"), ("random", "16"), ("fastv", "48")]
    total = 6 * 2 + 48  # ms
    questions = {batch: row.questions_per_s for batch, row in curves["random", "48"].items()}
    assert questions == {1: pytest.approx(1000 / total), 16: pytest.approx(16000 / total)}


def test_another_prompt_is_another_curve(records) -> None:
    first, second, _ = records
    other = second.model_copy(update={"load": second.load.model_copy(update={"new_tokens": 9})})
    assert throughputs(build([first, other])) == []


def test_the_plot_and_the_page_draw_questions_against_the_batch(records) -> None:
    words = set(re.findall("<!-- (.*?) -->", plot(build(records), "svg").decode()))
    assert {"prompts at once", "questions a second, end to end", "budget 48", "budget 16"} <= words
    page = html((), efficiency=records)
    assert page.count('<section class="part speed batches"') == 1
    section = page[page.index('<section class="part speed batches"') :]
    assert "Throughput: tiny-llava, random weights" in section
    assert "Batch 16, questions/s (TTFT ms)" in section
    assert '"label":"Questions a second, budget 48"' in section


def test_what_was_only_counted_cannot_be_drawn(profiled) -> None:
    record = profiled(random=(16,))
    rows = [row.model_copy(update={"times_ms": {}}) for row in record.rows]
    counted = record.model_copy(update={"rows": rows, "load": record.load.model_copy(update={"repeats": 0})})
    assert throughputs(build([counted])) == []
    assert '"points":[]' in html((), efficiency=[counted])
    with pytest.raises(UserError, match="nothing was run against the clock"):
        plot(build([counted]))

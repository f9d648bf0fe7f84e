from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from vtpbench.harness.models.dummy import describe_dummy
from vtpbench.harness.planning.page import estimator, render_plan
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.record import BatchInfo, DrawInfo, Environment, ModelInfo, Record, Timing
from vtpbench.harness.run.forecast import Forecast, foresee
from vtpbench.harness.run.plan import build_pruner, narrow, plan
from vtpbench.harness.suite.suite import ModelSpec, Suite, load
from vtpbench.pruners.base import ModelShape
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.random import Random

TASK = """\
task: {0}
dataset_path: json
dataset_kwargs: {{data_files: q.json}}
test_split: train
metric_list: [{{metric: hits}}]
"""
SUITE = """\
models: [{label: m, path: org/m}]
matrix:
  pruners: [random]
  budgets: [8, 25%]
  benchmarks: [{label: one, task: one, folder: tasks, metric: hits}, {label: two, task: two, folder: tasks, metric: hits}]
  seeds: [0, 1]
"""
PRUNER = """
from dataclasses import dataclass
from vtpbench.pruners.base import Cut, Pruner
from vtpbench.pruners.errors import Infeasible, Unsupported

@dataclass(frozen=True)
class Late(Pruner):
    layer: int = 2
    cls: bool = False

    def needs(self, shape):
        if self.cls and not shape.has_cls:
            raise Unsupported("no CLS token")
        return frozenset()

    def cuts(self, budget, n, shape):
        if budget < n * self.layer / shape.decoder_layers:
            raise Infeasible(f"layer {self.layer} is too late for {budget} of {n}")
        return (Cut(self.layer, budget),)
"""
SHAPE = ModelShape("f", 8, 2, 8, 4, 8, 2, False, ())
VERSIONS = {"vtpbench": "1", "torch": "2"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks").mkdir()
    for task in ("one", "two"):
        (tmp_path / f"tasks/{task}.yaml").write_text(TASK.format(task))
    (tmp_path / "tasks/q.json").write_text("{}")
    (tmp_path / "late.py").write_text(PRUNER)
    return tmp_path


def suite(folder: Path, text: str = SUITE, *overrides: str) -> Suite:
    (folder / "s.yaml").write_text(text)
    return load(folder / "s.yaml", overrides)


def describe(spec: ModelSpec, vision_tokens: int | None = 64) -> ModelInfo:
    return ModelInfo(
        label=spec.label,
        id=spec.path,
        family="f",
        weights="w",
        dtype=str(spec.dtype),
        attention=str(spec.attention),
        preprocessing="crop",
        prompt="p",
        vision_tokens=vision_tokens,
    )


def cells_of(folder: Path, text: str = SUITE, *overrides: str, versions: Mapping[str, str] = VERSIONS) -> tuple[Cell, ...]:
    return plan(suite(folder, text, *overrides), describe, versions)


def forecasts(cells: Iterable[Cell], shape: ModelShape) -> dict[str, Forecast]:
    return {cell.id: foresee(cell, shape) for cell in cells}


def record(cell: Cell, wall_s: float) -> Record:
    return Record(
        cell_id=cell.id,
        suite="s",
        status="ok",
        model=cell.model,
        pruner=cell.pruner,
        budget=cell.budget,
        benchmark=cell.benchmark,
        seed=cell.seed,
        timing=Timing(wall_s=wall_s, generate_s=wall_s, overhead_s=0),
        batch=BatchInfo(requested=1, smallest=1),
        environment=Environment(versions={}, device="cpu", platform="p", git_commit=None),
        created="2025-01-01T00:00:00+00:00",
    )


def test_the_product_with_each_denominator_first(folder: Path) -> None:
    half = [f"m / {row} / one / seed {seed}" for row, seed in [("vanilla", 0)]]
    half += [f"m / random @ {budget} / one / seed {seed}" for budget in ("8", "25%") for seed in (0, 1)]
    assert [str(cell) for cell in cells_of(folder)] == half + [line.replace("one", "two") for line in half]


def test_vanilla_in_the_list_only_names_its_row(folder: Path) -> None:
    named = cells_of(folder, SUITE.replace("[random]", "[random, {label: Full, name: vanilla}]"))
    assert [cell.id for cell in named] == [cell.id for cell in cells_of(folder)]
    assert named[0].pruner.label == "Full"
    assert len(cells_of(folder, SUITE.replace("[random]", "[vanilla]"), "matrix.budgets=[5]")) == 2


def test_seeds_multiply_only_pruners_that_draw(folder: Path) -> None:
    cells = cells_of(folder, SUITE.replace("[random]", f"[random, '{folder}/late.py:Late']"))
    assert {cell.seed for cell in cells if cell.pruner.label == "Late"} == {0}
    assert cells[-1].pruner.options == {"layer": 2, "cls": False}
    drawn = [build_pruner(cell) for cell in cells if cell.pruner.name == "random"]
    assert drawn[:2] == [Random(seed=0), Random(seed=1)]


def test_matrices_that_overlap_share_cells(folder: Path) -> None:
    block = SUITE.partition("matrix:\n")[2]
    items = "-" + block[1:] + "-" + block[1:].replace("[8, 25%]", "[8, 16]")
    cells = cells_of(folder, "models: [{label: m, path: org/m}]\nmatrix:\n" + items)
    assert len(cells) == len({cell.id for cell in cells}) == 2 * (1 + 3 * 2)


def test_a_matrix_may_name_its_models(folder: Path) -> None:
    text = SUITE.replace("[{label: m, path: org/m}]", "[org/m, org/k]").replace("matrix:\n", "matrix:\n  models: [k]\n")
    assert {cell.model.label for cell in cells_of(folder, text)} == {"k"}


def test_each_model_answers_a_benchmark_as_its_family_does(folder: Path) -> None:
    text = SUITE.replace("[{label: m, path: org/m}]", "[{label: a, path: org/a}, {label: b, path: org/b}]")
    (folder / "tasks/one.yaml").write_text(TASK.format("one") + "generation_kwargs: {until: [A, B]}\n")
    families = {"a": "llava", "b": "qwen2_5_vl"}

    def each(spec: ModelSpec) -> ModelInfo:
        return describe(spec).model_copy(update={"family": families[spec.label]})

    def asked(*overrides: str) -> dict[tuple[str, str], tuple[list[str], int]]:
        found = {
            (c.model.label, c.benchmark.label): c.benchmark.generation
            for c in plan(suite(folder, text, *overrides), each, VERSIONS)
        }
        return {key: (list(generation["until"]), generation["max_new_tokens"]) for key, generation in found.items()}

    assert asked() == {
        ("a", "one"): ([], 1024),
        ("a", "two"): ([], 1024),
        ("b", "one"): (["A", "B"], 32768),
        ("b", "two"): ([], 32768),
    }
    told = asked("generation.until=['.']", "generation.max_new_tokens=7")
    assert set(map(str, told.values())) == {"(['.'], 7)"}, "what a suite says holds for every family"


@pytest.mark.parametrize("change", ["limit=3", "batch_size=2", "dtype=float32", "generation.max_new_tokens=3", "attention=eager"])
def test_every_option_changes_the_identity(change: str, folder: Path) -> None:
    assert not {cell.id for cell in cells_of(folder)} & {cell.id for cell in cells_of(folder, SUITE, change)}


def test_a_benchmark_s_own_limit_wins_over_the_suite_s_and_the_command_line_over_both(folder: Path) -> None:
    own = SUITE.replace("{label: one, task: one,", "{label: one, limit: 3, task: one,") + "limit: 7\n"

    def limits(text: str, *overrides: str) -> dict[str, int | None]:
        return {cell.benchmark.label: cell.benchmark.limit for cell in cells_of(folder, text, *overrides)}

    assert limits(own) == {"one": 3, "two": 7}
    assert limits(own, "limit=5") == {"one": 5, "two": 5}
    assert limits(own, "limit=") == {"one": None, "two": None}
    assert limits(own, "matrix.benchmarks.0.limit=4") == {"one": 4, "two": 7}
    both = SUITE + "limit: 3\n"
    assert {c.id for c in cells_of(folder, own) if c.benchmark.label == "one"} == {
        c.id for c in cells_of(folder, both) if c.benchmark.label == "one"
    }, "where a limit is written makes no other cell"


def test_a_seeded_limit_is_another_cell_and_one_without_a_limit_is_not(folder: Path) -> None:
    def ids(*overrides: str) -> set[str]:
        return {cell.id for cell in cells_of(folder, SUITE, *overrides)}

    assert ids("limit_seed=0") == ids()
    drawn = [ids("limit=3"), ids("limit=3", "limit_seed=0"), ids("limit=3", "limit_seed=1"), ids("limit=4", "limit_seed=0")]
    assert not set.intersection(*drawn)
    assert len(set.union(*drawn)) == sum(map(len, drawn))
    by_column = "matrix.benchmarks.0.together=page"
    assert len(ids("limit=3", "limit_seed=0") & ids("limit=3", "limit_seed=0", by_column)) == len(drawn[0]) / 2
    own = {c.benchmark.label: c.benchmark.draw for c in cells_of(folder, SUITE, "limit=3", "matrix.benchmarks.0.limit_seed=5")}
    assert own["two"] is None
    assert own["one"] == DrawInfo(seed=5, together="")


def test_identity_follows_versions_but_no_labels(folder: Path) -> None:
    before = [cell.id for cell in cells_of(folder)]
    assert [cell.id for cell in cells_of(folder, SUITE.replace("label: m,", "label: other,"))] == before
    assert not set(before) & {cell.id for cell in cells_of(folder, versions={**VERSIONS, "torch": "3"})}


def test_one_measurement_under_two_names_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"random @ 8 .* and .*again @ 8 .* are the same measurement"):
        cells_of(folder, SUITE.replace("[random]", "[random, {label: again, name: random}]"))


def test_a_budget_above_the_vision_tokens_names_its_line(folder: Path) -> None:
    text = SUITE.replace("[8, 25%]", "\n    - 64\n    - 65")
    with pytest.raises(UserError, match=r"s\.yaml:6: budget 65 is larger than the 64 vision tokens of model 'm'"):
        cells_of(folder, text)
    assert plan(suite(folder, text), lambda spec: describe(spec, None), VERSIONS)  # the count varies: judged when it runs


def test_only_keeps_what_is_named_and_its_denominators(folder: Path) -> None:
    cells = cells_of(folder)
    chosen = narrow(cells, ["budget=8", "benchmark=two", "seed=1"])
    assert [str(cell) for cell in chosen] == ["m / vanilla / two / seed 0", "m / random @ 8 / two / seed 1"]
    assert narrow(cells, ["budget=8", "budget=25%"]) == cells
    assert [cell.benchmark.label for cell in narrow(cells, ["pruner=vanilla"])] == ["one", "two"]
    assert narrow(cells, []) == cells


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("prunner=random", "--only prunner=random: did you mean 'pruner'?; keys are model, pruner, budget, benchmark, seed"),
        ("random", "--only random: write key=value; keys are "),
        ("pruner=randon", "--only pruner=randon: no cell has this pruner; did you mean 'random'?"),
        ("budget=9", "--only budget=9: no cell has this budget; known: 25%, 8, all"),
    ],
)
def test_only_names_its_mistakes(only: str, message: str, folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        narrow(cells_of(folder), [only])
    assert str(caught.value).startswith(message)


def test_only_that_leaves_nothing_is_a_mistake(folder: Path) -> None:
    with pytest.raises(UserError, match="no cell is left by --only pruner=vanilla --only budget=8"):
        narrow(cells_of(folder), ["pruner=vanilla", "budget=8"])


def test_what_prunes_is_never_without_random(folder: Path) -> None:
    def rows(matrix: str) -> list[tuple[str, str, int]]:
        text = SUITE[: SUITE.index("matrix:")] + matrix
        cells = plan(suite(folder, text), describe, VERSIONS)
        assert len({cell.id for cell in cells}) == len(cells)
        return [(cell.pruner.label, cell.budget.label, cell.seed) for cell in cells if cell.benchmark.label == "one"]

    common = "benchmarks: [{label: one, task: one, folder: tasks, metric: hits}], seeds: [0, 1]"
    floor = [("vanilla", "all", 0), ("random", "8", 0), ("random", "8", 1)]
    assert rows(f"matrix: {{pruners: [grid], budgets: [8], {common}}}") == [*floor, ("grid", "8", 0)]
    assert rows(f"matrix: {{pruners: [vanilla], budgets: [8], {common}}}") == floor[:1]
    named = f"{{pruners: [{{label: floor, name: random}}], budgets: [8], {common}}}"
    other = f"{{pruners: [grid], budgets: [8, 4], {common}}}"  # a matrix of its own takes the suite's random row, by its name
    found = rows(f"matrix: [{named}, {other}]")
    assert found.count(("floor", "8", 0)) == found.count(("floor", "4", 1)) == 1
    assert not [row for row in found if row[0] == "random"]


def test_random_comes_by_itself_only_where_no_matrix_names_it_for_the_model(folder: Path) -> None:
    def row(models: str, pruner: str, budgets: str, benchmarks: str, seeds: str) -> str:
        own = ", ".join(f"{{label: {task}, task: {task}, folder: tasks, metric: hits}}" for task in benchmarks.split())
        return f"  - {{models: [{models}], pruners: [{pruner}], budgets: [{budgets}], benchmarks: [{own}], seeds: [{seeds}]}}\n"

    named, grid = row("m", "random", "8", "one", "1, 2"), row("m, k", "grid", "8, 4", "one two", "0")
    for matrices in (named + grid, grid + named):
        text = "models: [{label: m, path: org/m}, {label: k, path: org/k}]\nmatrix:\n" + matrices
        cells = plan(suite(folder, text), lambda spec: describe(spec).model_copy(update={"weights": spec.label}), VERSIONS)
        seeds: dict[tuple[str, str, str], list[int]] = {}
        for cell in cells:
            if cell.pruner.name == "random":
                seeds.setdefault((cell.model.label, cell.budget.label, cell.benchmark.label), []).append(cell.seed)
        assert seeds.pop(("m", "8", "one")) == [1, 2]
        assert list(seeds.values()) == [[0]] * 7


def test_the_label_of_vanilla_holds_in_matrices_that_do_not_name_it(folder: Path) -> None:
    common = "benchmarks: [{label: one, task: one, folder: tasks, metric: hits}]"
    named = f"  - {{pruners: [random, {{label: Full, name: vanilla}}], budgets: [8], {common}}}\n"
    other = f"  - {{pruners: [grid], budgets: [8], {common}}}\n"
    for matrices in (named + other, other + named):
        cells = cells_of(folder, "models: [{label: m, path: org/m}]\nmatrix:\n" + matrices)
        assert sorted(cell.pruner.label for cell in cells) == ["Full", "grid", "random"]
    twice = named + named.replace("Full", "All")
    with pytest.raises(UserError, match="are the same measurement under two names"):
        cells_of(folder, "models: [{label: m, path: org/m}]\nmatrix:\n" + twice)


TILED = replace(SHAPE, vision_layers=4, full_attention=(0, 1, 2, 3), has_cls=True, tiles=5)


@pytest.mark.parametrize("pruner", ["grid", "pool", "hiprune", "visionzip", "downsample", "tome", "tome: {stage: post}"])
def test_a_budget_that_tiles_cannot_share_is_an_obstacle(pruner: str, folder: Path) -> None:
    text = SUITE.replace("[random]", f"[{pruner if ':' not in pruner else '{' + pruner + '}'}]").replace("[8, 25%]", "[40, 41]")
    cells = plan(suite(folder, text), lambda spec: describe(spec, 80), VERSIONS)
    found = {cell.budget.label: foresee(cell, TILED).obstacle for cell in cells if cell.pruner.name not in ("vanilla", "random")}
    assert found == {"40": "", "41": "infeasible: a budget of 41 cannot be shared equally by 5 tiles; use a multiple of 5"}


EARLY = """
from dataclasses import dataclass
from vtpbench.pruners.base import Cut, Pruner

@dataclass(frozen=True)
class Early(Pruner):
    def tower_cuts(self, budget, n, shape):
        return (Cut(-2, budget),)

    def score(self, view):
        return view.features[..., 0]
"""


@pytest.mark.parametrize(
    ("model", "preprocessing"),
    [("qwen2-vl-2b", None), ("qwen2.5-vl-3b", None), ("qwen3-vl-2b", None), ("llava-next-7b", "native")],
)
@pytest.mark.parametrize("pruner", ["tome", "early"])
def test_a_tower_that_no_token_can_leave_is_an_obstacle(pruner: str, model: str, preprocessing: str | None, folder: Path) -> None:
    (folder / "early.py").write_text(EARLY)
    named = "tome" if pruner == "tome" else f"'{folder}/early.py:Early'"
    shape = describe_dummy(model, preprocessing=preprocessing).shape
    cells = plan(suite(folder, SUITE.replace("[random]", f"[{named}]")), lambda spec: describe(spec, None), VERSIONS)
    found = {foresee(cell, shape).obstacle for cell in cells if cell.pruner.name not in ("vanilla", "random")}
    assert len(found) == 1
    (obstacle,) = found
    assert obstacle.startswith("unsupported: no token can leave inside the vision tower")
    assert ("stage: post" if pruner == "tome" else "Early takes some out there") in obstacle


@pytest.mark.parametrize(
    ("pruner", "budgets", "feasible"),
    [
        ("visionzip: {contextual: 40}", (32, 40, 41), (41,)),
        ("hiprune: {alpha: 1}", (8, 10), (10,)),
        ("hiprune: {alpha: 0.1}", (8, 10), (8, 10)),
    ],
)
def test_what_options_need_of_a_budget_is_known_beforehand(
    pruner: str, budgets: tuple[int, ...], feasible: tuple[int, ...], folder: Path
) -> None:
    cells = cells_of(folder, SUITE.replace("[random]", f"[{{{pruner}}}]").replace("[8, 25%]", str(list(budgets))))
    asked = [cell for cell in cells if cell.pruner.name not in ("vanilla", "random")]
    found = {cell.budget.tokens: foresee(cell, replace(TILED, tiles=1)).obstacle for cell in asked}
    assert tuple(budget for budget, obstacle in found.items() if not obstacle) == feasible
    assert all(obstacle.startswith("infeasible: ") for obstacle in found.values() if obstacle)


@pytest.mark.parametrize("method", ["needs(self, shape)", "cuts(self, budget, n, shape)", "fingerprint(self, shape)"])
def test_a_pruner_that_breaks_is_named_in_a_line(method: str, folder: Path) -> None:
    imports = "from dataclasses import dataclass\nfrom vtpbench.pruners.base import Pruner\n\n"
    head = "@dataclass(frozen=True)\nclass Broken(Pruner):\n    score = None\n"
    broken = f"{head}    def {method}:\n        return {{}}['no\\nsuch']\n"
    (folder / "broken.py").write_text(imports + broken)
    chosen = suite(folder, SUITE.replace("[random]", f"['{folder}/broken.py:Broken']"))
    message = r"pruner '.*broken\.py:Broken' broke with KeyError: .*; look into it with: vtpbench check .*broken\.py:Broken$"
    with pytest.raises(UserError, match=message):
        forecasts(plan(chosen, describe, VERSIONS, lambda pruner, model: pruner.fingerprint(SHAPE)), SHAPE)


def test_where_the_count_varies_a_model_that_does_not_fit_is_an_obstacle_and_a_budget_is_none(folder: Path) -> None:
    late = f"[{{label: late, name: '{folder}/late.py:Late', options: {{layer: 7}}}}, "
    clipped = f"{{label: cls, name: '{folder}/late.py:Late', options: {{cls: true}}}}]"
    cells = plan(suite(folder, SUITE.replace("[random]", late + clipped)), lambda spec: describe(spec, None), VERSIONS)
    found = {cell.pruner.label: foresee(cell, SHAPE).obstacle for cell in cells}
    assert found == {"vanilla": "", "random": "", "late": "", "cls": "unsupported: no CLS token"}


def test_the_plan_shows_the_average_that_a_run_must_show(folder: Path) -> None:
    paper = "{fastv: {rows: all, schedule: paper}}"
    text = SUITE.replace("[random]", f"[text-only, {paper}]").replace("[8, 25%]", "[192, 12.5%]").replace("[0, 1]", "[0]")
    shape = replace(SHAPE, decoder_layers=32)

    def column(vision_tokens: int | None) -> list[str]:
        cells = plan(suite(folder, text), lambda spec: describe(spec, vision_tokens), VERSIONS)
        lines = render_plan(cells, set(), forecasts(cells, shape)).splitlines()
        return [line.split()[3] for line in lines[1:8]]

    rows = ["vanilla", "random @ 192", "random @ 12.5%", "text-only @ 192", "text-only @ 12.5%", "fastv @ 192", "fastv @ 12.5%"]
    fixed, varying = ["576", "192", "72", "0", "0", "204.8", "72"], ["varies", "192", "varies", "0", "0", "192", "varies"]
    assert dict(zip(rows, column(576), strict=True)) == dict(zip(rows, fixed, strict=True))
    assert dict(zip(rows, column(None), strict=True)) == dict(zip(rows, varying, strict=True))


def test_the_printed_plan(folder: Path) -> None:
    late = f"{{label: late, name: '{folder}/late.py:Late', options: {{layer: 4}}}}"
    clipped = f"{{label: cls, name: '{folder}/late.py:Late', options: {{cls: true}}}}"
    text = SUITE.replace("[random]", f"[random, {late}, {clipped}]").replace("[0, 1]", "[0]").replace("[8, 25%]", "[16, 50%]")
    cells = cells_of(folder, text)
    done = {cell.id for cell in cells if cell.benchmark.label == "one" and cell.pruner.name in ("vanilla", "random")}
    times = estimator([record(cells[0], 40.0)])
    assert (
        render_plan(cells, done, forecasts(cells, SHAPE), times)
        == """\
model  pruner   budget  tokens  seed  one          two
m      vanilla  all     64      0     done         missing
m      random   16      16      0     done         missing
m      random   50%     32      0     done         missing
m      late     16      16      0     infeasible   infeasible
m      late     50%     32      0     missing      missing
m      cls      16      16      0     unsupported  unsupported
m      cls      50%     32      0     unsupported  unsupported

vision tokens that enter the decoder layers:
m / late @ 50%: 64 in layers 0-3, 32 in layers 4-7; average 48.0

m / late @ 16: infeasible: layer 4 is too late for 16 of 64
m / cls @ 16: unsupported: no CLS token
m / cls @ 50%: unsupported: no CLS token

14 cells: 3 done, 5 missing, 6 impossible; about 3 min to go"""
    )


def test_a_sequence_is_planned_as_a_whole(folder: Path) -> None:
    row = "{label: both, sequence: [divprune: {share: 0.5}, fastv: {layer: 2}]}"
    cells = cells_of(folder, SUITE.replace("[random]", f"[{row}]").replace("[8, 25%]", "[8, 16, 32]"))
    found = {cell.budget.tokens: foresee(cell, SHAPE) for cell in cells if cell.pruner.label == "both"}
    assert {budget: forecast.schedule for budget, forecast in found.items()} == {
        8: "",
        16: "32 in layers 0-1, 11 in layers 2-7; average 16.2",
        32: "",
    }
    assert found[8].obstacle.startswith("infeasible: FastV with layer=2 keeps all 32 tokens in 2 of 8 layers")
    assert found[32].obstacle.startswith("infeasible: divprune with share=0.5 leaves 32 of 64 tokens, which must be more than")


def test_where_the_count_varies_the_schedule_is_that_of_an_example(folder: Path) -> None:
    text = SUITE.replace("[random]", f"[random, '{folder}/late.py:Late']").replace("[8, 25%]", "[50%]")
    cells = plan(suite(folder, text), lambda spec: describe(spec, None), VERSIONS)
    assert {cell.pruner.label: foresee(cell, SHAPE) for cell in cells} == {
        "vanilla": Forecast(None),
        "random": Forecast(None),
        "Late": Forecast(None, "", "1000 in layers 0-1, 500 in layers 2-7; average 625.0 (an image of 1000 tokens)"),
    }


def test_the_plan_warns_of_a_model_that_one_image_and_an_answer_fill(folder: Path) -> None:
    text = SUITE.replace("[8, 25%]", "[8]").replace("[0, 1]", "[0]")
    cells = plan(suite(folder, text + "generation: {max_new_tokens: 20}\n"), describe, VERSIONS)
    for positions, warned in ((None, 0), (1000, 0), (80, 2), (20, 4)):
        forecasts = {cell.id: foresee(cell, replace(SHAPE, positions=positions)) for cell in cells}
        shown = render_plan(cells, set(), forecasts)
        assert shown.count("warning: ") == warned, shown
    assert "m / vanilla @ all / one: one image leaves 0 of the model's positions for text and an answer of up to 20" in shown
    assert "m / random @ 8 / one: one image leaves 12 of" in shown
    assert "warning" not in render_plan(cells, {cell.id for cell in cells}, forecasts)


def test_schedules_tell_what_stays_from_what_is_merged(folder: Path) -> None:
    cells = cells_of(
        folder, SUITE.replace("[random]", "[random, sparsevlm]").replace("[8, 25%]", "[16]").replace("[0, 1]", "[0]")
    )
    (schedule,) = {foresee(cell, SHAPE).schedule for cell in cells if cell.pruner.name == "sparsevlm"}
    assert schedule.startswith("64 in layer 0, 28 (26 + 2 merged) in layer 1, 10 (9 + 1 merged) in layers 2-3, 4 (3 + 1 merged)")


def test_schedules_show_what_happens_in_the_vision_tower(folder: Path) -> None:
    cells = cells_of(folder, SUITE.replace("[random]", "[random, tome]").replace("[8, 25%]", "[7, 20]").replace("[0, 1]", "[0]"))
    shape = replace(SHAPE, vision_layers=4, full_attention=(0, 1, 2, 3), tiles=1)
    found = {cell.budget.label: foresee(cell, shape) for cell in cells if cell.pruner.name == "tome"}
    assert found == {
        "7": Forecast(7.0, "infeasible: tome cannot merge 64 tokens into 7 in 3 layers; use at least 8 a tile"),
        "20": Forecast(20.0, "", "20 in layers 0-7; average 20.0; in the vision tower 49, 34, 20 behind layers 0-2"),
    }


THINNER = """
from dataclasses import dataclass
from vtpbench.pruners.base import Cut, Pruner

@dataclass(frozen=True)
class Thinner(Pruner):
    layers: str = "0"

    def tower_cuts(self, budget, n, shape):
        at = [int(layer) for layer in self.layers.split()]
        return tuple(Cut(layer - shape.vision_layers, n - 2 * i - 2) for i, layer in enumerate(at))

    def score(self, view):
        return view.features[..., 0]
"""


@pytest.mark.parametrize(
    ("layers", "shown"),
    [
        ("3", "62 behind layer 3"),
        ("0 1 2 3", "62, 60, 58, 56 behind layers 0-3"),
        ("0 1 2 3 4", "62, 60, ... 54 behind layers 0-4"),
        ("0 1 4 6 7 8 9 10", "62, 60 behind layers 0-1, 58 behind layer 4, 56, 54, ... 48 behind layers 6-10"),
    ],
)
def test_many_layers_of_the_vision_tower_are_shown_as_spans(layers: str, shown: str, folder: Path) -> None:
    (folder / "thinner.py").write_text(THINNER)
    own = f"{{'{folder}/thinner.py:Thinner': {{layers: '{layers}'}}}}"
    cells = cells_of(folder, SUITE.replace("[random]", f"[{own}]").replace("[8, 25%]", "[8]"))
    shape = replace(SHAPE, vision_layers=12, full_attention=tuple(range(12)), tiles=1)
    assert foresee(cells[-1], shape).schedule.partition("; in the vision tower ")[2] == shown


def test_the_estimate_prefers_records_of_the_same_questions(folder: Path) -> None:
    cells = cells_of(folder)
    one, two = cells[0], cells[-1]
    times = estimator([record(one, 10.0), record(one, 20.0)])
    assert (times(one), times(two)) == (15.0, 15.0)
    times = estimator([record(one, 10.0), record(two, 100.0)])
    assert (times(one), times(two)) == (10.0, 100.0)
    assert estimator([])(one) is None
    known = forecasts(cells, SHAPE)
    unknown = "10 cells: 0 done, 10 missing; time unknown, nothing like it has been measured yet"
    assert render_plan(cells, set(), known).endswith(unknown)
    assert render_plan(cells, {cell.id for cell in cells}, known).endswith("10 done, 0 missing; nothing to do")


def test_where_files_lie_changes_no_cell(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    for place in (folder, other):
        (place / "late.py").write_text(PRUNER.replace("layer: int = 2", "layer: int = 2\n    weights: str | None = None"))
        (place / "weights.bin").write_bytes(b"trained")

    def ids(place: Path, model: str, fingerprint: str = "f") -> list[str]:
        text = SUITE.replace("[random]", f"[{{'{place}/late.py:Late': {{weights: '{place}/weights.bin'}}}}]")
        chosen = suite(folder, text.replace("org/m", model))
        return [cell.id for cell in plan(chosen, describe, VERSIONS, lambda pruner, model: fingerprint)]

    assert ids(folder, "org/m") == ids(other, "elsewhere/m")
    assert ids(folder, "org/m")[1] != ids(folder, "org/m", "other weights")[1]


def test_identity_follows_the_tower_and_the_files_of_a_pruner_apart(folder: Path) -> None:
    cell = cells_of(folder)[-1]
    trained = [replace(cell, pruner=cell.pruner.model_copy(update={"fingerprint": each})) for each in ("a", "b")]
    towered = [replace(cell, model=cell.model.model_copy(update={"tower": tower})) for tower in ("a", "b")]
    assert len({each.id for each in (cell, *trained, *towered)}) == 5


def test_a_record_names_files_as_the_suite_does_and_the_pruner_opens_them_where_they_lie(folder: Path) -> None:
    (folder / "late.py").write_text(PRUNER.replace("layer: int = 2", "layer: int = 2\n    weights: str | None = None"))
    (folder / "own").mkdir()
    (folder / "own" / "weights.bin").write_bytes(b"trained")
    text = SUITE.replace("[random]", f"[{{'{folder}/late.py:Late': {{weights: own/weights.bin}}}}]")
    cell = plan(suite(folder, text), describe, VERSIONS)[-1]
    assert cell.pruner.model_dump()["options"]["weights"] == "own/weights.bin"
    assert str(folder) not in str(cell.pruner.model_dump()["options"])
    assert vars(build_pruner(cell))["weights"] == str(folder / "own" / "weights.bin")

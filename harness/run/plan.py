"""From a suite to its cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, TypeAlias

from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.record import BenchmarkInfo, BudgetInfo, ModelInfo, PrunerInfo
from vtpbench.harness.suite.benchmarks import decoding
from vtpbench.harness.suite.benchmarks import describe as describe_benchmark
from vtpbench.harness.suite.benchmarks import fingerprint as dataset_fingerprint
from vtpbench.harness.suite.specs import automatic, build_described, build_seeded, is_seeded, refuse_large_budget
from vtpbench.harness.suite.suite import Matrix, ModelSpec, PrunerSpec, Suite
from vtpbench.pruners.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from vtpbench.harness.suite.benchmarks import Benchmark
    from vtpbench.pruners.base import Pruner

Fingerprint: TypeAlias = "Callable[[Pruner, ModelInfo], str]"


def plan(
    suite: Suite,
    describe: Callable[[ModelSpec], ModelInfo],
    versions: Mapping[str, str],
    fingerprint: Fingerprint = lambda pruner, model: "",
    dataset: Callable[[Benchmark], str] = dataset_fingerprint,
) -> tuple[Cell, ...]:
    """List the cells of a suite: model x pruner x budget x benchmark x seed, each denominator before what it divides.

    Every matrix gets `vanilla`, and what prunes gets `random` beside it, unless a matrix names `random` for the same model,
    budget and benchmark: a method is ranked above it or not at all. Both carry the label that any matrix gives them.

    Parameters
    ----------
    suite : what to measure
    describe : states a model as it will be run; called once per model
    versions : of lmms-eval, transformers, torch, pillow, tokenizers and of the code; see `vtpbench.harness.records.environment`
    fingerprint : hashes the files beside a pruner's options that decide what it keeps on a model, such as trained weights
    dataset : names what a benchmark asks, by the content of its data

    Raises
    ------
    UserError : a budget above a model's vision tokens, two rows that are the same measurement, data out of reach, a pruner that
        breaks

    """
    generation = suite.generation.model_dump(mode="json", exclude_none=True)
    benchmarks = {
        label: describe_benchmark(
            benchmark, suite.limit, generation, suite.limit_seed, on_bad_question=suite.on_bad_question, dataset=dataset
        )
        for label, benchmark in suite.benchmarks.items()
    }
    cells: dict[str, Cell] = {}
    unasked = automatic(spec for matrix in suite.matrix for spec in matrix.pruners)
    for spec in suite.models:
        model = describe(spec)
        asked = {label: _answered_by(model, info, suite.benchmarks[label], generation) for label, info in benchmarks.items()}
        matrices = {m: each for m, each in enumerate(suite.matrix) if each.models is None or spec.label in each.models}
        floored = _floored(matrices.values())
        for m, matrix in matrices.items():
            _refuse_large_budgets(suite, m, model)
            rows = planned_rows(matrix, model, fingerprint, *unasked)
            for label in [benchmark.label for benchmark in matrix.benchmarks]:
                for pruner, budget, seed in rows:
                    if pruner.name == "random" and not _names_random(matrix) and (budget, label) in floored:
                        continue  # another matrix says with which seeds
                    run = suite.questions_together, versions, suite.share_prefix, suite.graphs
                    _add(cells, Cell(model, pruner, budget, asked[label], seed, *run))
    return _with_seeds(cells.values())


def _with_seeds(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Tell each cell with which seeds its row is asked for on its benchmark."""
    listed = list(cells)
    seeds: dict[tuple[str, ...], set[int]] = {}
    keys = [(cell.model.label, cell.pruner.label, cell.budget.label, cell.benchmark.label) for cell in listed]
    for key, cell in zip(keys, listed, strict=True):
        seeds.setdefault(key, set()).add(cell.seed)
    return tuple(dataclasses.replace(cell, seeds=tuple(sorted(seeds[key]))) for key, cell in zip(keys, listed, strict=True))


def _answered_by(model: ModelInfo, info: BenchmarkInfo, benchmark: Benchmark, generation: Mapping[str, Any]) -> BenchmarkInfo:
    """State a benchmark as one model answers it: families follow a task's stop texts in their own ways."""
    return info.model_copy(update={"generation": decoding(benchmark, generation, model.family)})


def build_pruner(cell: Cell) -> Pruner:
    """Make the pruner of a cell, seeded where it draws at random."""
    return build_seeded(cell.pruner.name, {**cell.pruner.options, **cell.pruner.files}, cell.seed)


def narrow(cells: Sequence[Cell], only: Sequence[str]) -> tuple[Cell, ...]:
    """Keep the cells that every `key=value` names (one key several times: either value), and their denominators.

    Raises
    ------
    UserError : unknown key, a value that no cell has, or a combination that leaves nothing

    """
    wanted: dict[str, set[str]] = {}
    for text in only:
        key, equals, value = text.partition("=")
        if not equals or key not in _NAMES:
            hint = "write key=value" if not equals else did_you_mean(key, _NAMES)
            raise UserError(f"--only {text}: {hint}; keys are {', '.join(_NAMES)}")
        known = {name for cell in cells for name in _NAMES[key](cell)}
        if value not in known:
            raise UserError(f"--only {text}: no cell has this {key}; {did_you_mean(value, known)}")
        wanted.setdefault(key, set()).add(value)
    chosen = [cell for cell in cells if all(values & _NAMES[key](cell) for key, values in wanted.items())]
    if not chosen:
        raise UserError(f"no cell is left by {' '.join(f'--only {text}' for text in only)}")
    divided = {(cell.model.label, cell.benchmark.label) for cell in chosen}
    ids = {cell.id for cell in chosen}
    return tuple(
        cell for cell in cells if cell.id in ids or (cell.is_vanilla and (cell.model.label, cell.benchmark.label) in divided)
    )


_NAMES: dict[str, Callable[[Cell], AbstractSet[str]]] = {
    "model": lambda cell: {cell.model.label},
    "pruner": lambda cell: {cell.pruner.name, cell.pruner.label},
    "budget": lambda cell: {cell.budget.label},
    "benchmark": lambda cell: {cell.benchmark.label},
    "seed": lambda cell: {str(cell.seed)},
}


def _add(cells: dict[str, Cell], cell: Cell) -> None:
    twin = cells.setdefault(cell.id, cell)
    if str(twin) != str(cell):
        raise UserError(f"'{twin}' and '{cell}' are the same measurement under two names; remove one from the suite")


def _names_random(matrix: Matrix) -> bool:
    return any(spec.name == "random" for spec in matrix.pruners)


def _floored(matrices: Iterable[Matrix]) -> set[tuple[BudgetInfo, str]]:
    """Budgets and benchmarks (labels) for which the user named `random`."""
    naming = [matrix for matrix in matrices if _names_random(matrix)]
    return {(budget, each.label) for matrix in naming for budget in matrix.budgets for each in matrix.benchmarks}


def planned_rows(
    matrix: Matrix, model: ModelInfo, fingerprint: Fingerprint, vanilla: PrunerSpec, floor: PrunerSpec
) -> list[tuple[PrunerInfo, BudgetInfo, int]]:
    """List pruner, budget and seed of all rows, vanilla first; `vanilla` and `floor` come where the matrix does not name them."""
    named = next((spec for spec in matrix.pruners if spec.name == "vanilla"), vanilla)
    pruners = [spec for spec in matrix.pruners if spec.name != "vanilla"]
    if pruners and not _names_random(matrix):
        pruners.insert(0, floor)
    rows = [(_describe(named, model, fingerprint), BudgetInfo(), 0)]
    for spec in pruners:
        info = _describe(spec, model, fingerprint)
        seeds = matrix.seeds if is_seeded(spec.name) else (0,)
        rows += [(info, budget, seed) for budget in matrix.budgets for seed in seeds]
    return rows


def _describe(spec: PrunerSpec, model: ModelInfo, fingerprint: Fingerprint) -> PrunerInfo:
    return build_described(spec, lambda pruner: fingerprint(pruner, model))[1]


def _refuse_large_budgets(suite: Suite, m: int, model: ModelInfo) -> None:
    for b, budget in enumerate(suite.matrix[m].budgets):
        refuse_large_budget(budget, model.vision_tokens, model.label, f"{suite.where('matrix', m, 'budgets', b)}: ")

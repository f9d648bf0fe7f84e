"""Tasks that cannot be answered or scored here, told from their definitions: nobody's code is run for it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtpbench.harness.suite.task_metrics import FUNCTION, metric_entries
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.suite.benchmarks import Benchmark

JUDGE = "llm_judge"
"""lmms-eval's module that asks a language model for scores."""
JUDGE_KEYS = frozenset({"OPENAI_API_KEY", "AZURE_API_KEY"})
"""Environment variables with which that module reaches one."""
NLTK_COMMAND = "python -m nltk.downloader"
_IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t].*", re.MULTILINE)
_KEY = re.compile(r"\b[A-Z][A-Z_]*_API_KEY\b")


def refuse_unsupported(benchmark: Benchmark) -> None:
    """Refuse a task whose questions are not answered by text, show videos, or that cannot be scored from the answers here.

    Raises
    ------
    UserError : with what to do instead

    """
    definition, name = benchmark.definition(), f"benchmark '{benchmark.label}': task '{benchmark.task}'"
    if definition.get("output_type", "generate_until") != "generate_until":
        raise UserError(f"{name} has output_type {definition['output_type']}; vtpbench answers generate_until only")
    if (definition.get("dataset_kwargs") or {}).get("video"):
        raise UserError(f"{name} shows videos, which are not supported; remove it, or name a task that shows pictures")
    if unscored := sorted(set(benchmark.terms) & set(benchmark.drop)):
        advice = "name another metric, or a split with answers"
        raise UserError(f"{name}: metric '{unscored[0]}' writes a file for an evaluation server and is no score; {advice}")
    keys = frozenset[str]() if benchmark.judged is False else judge_keys(definition, benchmark.terms, benchmark.file.parent)
    keys = keys or (JUDGE_KEYS if benchmark.judged else keys)
    if keys and not any(os.environ.get(key) for key in keys):
        why = f"may ask a language model to judge the answers, and of {', '.join(sorted(keys))} none is set"
        advice = "set one, name a metric that is computed, or write judged: false where you know that none is asked"
        raise UserError(f"{name}: the code of metric '{' + '.join(benchmark.terms)}' {why}; {advice}")
    if absent := missing_nltk(benchmark.nltk):
        packages = " ".join(resource.rpartition("/")[2] for resource in absent)
        raise UserError(f"{name} reads answers with data of NLTK that are not here; run: {NLTK_COMMAND} {packages}")


def judge_keys(definition: Mapping[str, Any], metrics: tuple[str, ...], folder: Path) -> frozenset[str]:
    """Names of the keys with which the code that scores a task asks a language model; none where it asks none.

    Looked for is what the text of the modules mentions that make the named metrics: such code, without its key, gives scores
    of 0 or waits in vain. A module may hold code for several tasks, of which only some ask.
    """
    texts = _with_imports(_scoring_modules(definition, metrics, folder), folder)
    keys = {key for text in texts for key in _KEY.findall(text)}
    return JUDGE_KEYS.union(keys) if any(JUDGE in text for text in texts) else frozenset(keys)


def missing_nltk(resources: Iterable[str]) -> list[str]:
    """Those of NLTK's data that are not on this machine, unpacked or as they are downloaded."""
    wanted = list(resources)
    if not wanted:
        return []
    from nltk import data  # takes a second

    def is_here(resource: str) -> bool:
        for form in (resource, f"{resource}.zip"):
            try:
                data.find(form)
            except LookupError:
                continue
            return True
        return False

    return [resource for resource in wanted if not is_here(resource)]


def _scoring_modules(definition: Mapping[str, Any], metrics: tuple[str, ...], folder: Path) -> Iterator[Path]:
    """Files of the functions that make the samples' scores and the named metrics of them."""
    entries = metric_entries(definition)
    functions = [definition.get("process_results"), *(entries[name].get("aggregation") for name in metrics if name in entries)]
    named = {str(each).removeprefix(FUNCTION).strip() for each in functions if str(each).startswith(FUNCTION)}
    for module in sorted({each.rpartition(".")[0] for each in named}):
        yield folder / f"{module.replace('.', '/')}.py"


def _with_imports(modules: Iterable[Path], folder: Path) -> list[str]:
    """Read modules of a task's folder, and those of it that they import."""
    left, read = [path for path in modules if path.is_file()], dict[Path, str]()
    while left:
        path = left.pop()
        read[path] = path.read_text(errors="replace")
        named = {word for line in _IMPORT.findall(read[path]) for word in re.findall(r"\w+", line)}
        left += [beside for beside in folder.glob("*.py") if beside.stem in named and beside not in read]
    return list(read.values())

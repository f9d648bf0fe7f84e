"""Print how the folders of the package depend on each other, its duplicated class names, and its longest functions and files.

    python benchmarks/folder_graph.py

Every import counts: those inside functions, and those for type checkers only. `tests/test_architecture.py` asks the same
functions whether the graph is acyclic.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP = ("harness", "pruners", "report", "suites")


def sources() -> list[Path]:
    """Source files of the package, sorted."""
    return [file for top in TOP for file in sorted((ROOT / top).rglob("*.py"))]


def imported(file: Path) -> set[str]:
    """Modules of this package, as `vtpbench.a.b`, that a file imports; a folder's own name where a module of it is taken."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            base = ROOT.joinpath(*node.module.split(".")[1:])
            found |= {f"{node.module}.{a.name}" if (base / f"{a.name}.py").is_file() else node.module for a in node.names}
    return {module for module in found if module.startswith("vtpbench.")}


def folder_of(module: str) -> str:
    """Folder that holds a module, `harness/models` of `vtpbench.harness.models.llava`; a package is its own folder."""
    place = Path(*module.split(".")[1:])
    return str(place if (ROOT / place).is_dir() else place.parent)


def graph() -> dict[str, set[str]]:
    """Folders that each folder imports from, its own left out."""
    found: dict[str, set[str]] = {}
    for file in sources():
        own = str(file.parent.relative_to(ROOT))
        found.setdefault(own, set()).update({folder_of(module) for module in imported(file)} - {own})
    return found


def order(folders: Mapping[str, set[str]]) -> list[str]:
    """Sort folders so that each stands behind those that it imports from; raises `graphlib.CycleError` with a cycle."""
    return list(TopologicalSorter(folders).static_order())


def classes() -> dict[str, list[str]]:
    """Files that define each class name."""
    found: dict[str, list[str]] = {}
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    return found


def functions() -> Iterator[tuple[int, str]]:
    """Lines and place of every function."""
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
                yield node.end_lineno - node.lineno + 1, f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"


def main() -> None:
    """Print it."""
    folders = graph()
    for folder in order(folders):
        print(f"{folder}: {', '.join(sorted(folders.get(folder, ()))) or '-'}")
    twice = {name: places for name, places in classes().items() if len(places) > 1}
    print(f"\n{len(twice)} class names stand twice: {', '.join(sorted(twice)) or '-'}")
    lines = Counter({str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in sources()})
    print("longest files:", ", ".join(f"{name} {n}" for name, n in lines.most_common(5)))
    print("longest functions:", ", ".join(f"{place} {n}" for n, place in sorted(functions(), reverse=True)[:5]))


if __name__ == "__main__":
    main()

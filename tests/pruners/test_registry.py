from __future__ import annotations

import ast
from pathlib import Path
from typing import get_type_hints

import pytest

from vtpbench import pruners
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import BUILT_IN, SHARED, build, entries, find

PRUNER = """
from dataclasses import dataclass
from vtpbench.pruners.base import Pruner

@dataclass(frozen=True)
class Mine(Pruner):
    order: int = 2

    def __post_init__(self):
        if self.order < 1:
            raise ValueError(f"order must be at least 1, not {self.order}")

    def score(self, view):
        return view.features.norm(p=self.order, dim=-1)

@dataclass(frozen=True)
class Idle(Pruner):
    pass

@dataclass(frozen=True)
class Unasked(Mine):
    nested = True

    def select(self, view):
        return self.selection_order(view)[:, ::2]

class NoDataclass(Pruner):
    pass

@dataclass
class NoPruner:
    pass
"""


@pytest.fixture
def provide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a distribution visible that has one entry point and, if code is given, its module."""

    def make(distribution: str, point: str, code: str | None = None) -> None:
        site = tmp_path / distribution
        info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[vtpbench.pruners]\n{point}\n")
        if code is not None:
            (site / f"{distribution.replace('-', '_')}.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))

    return make


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PRUNER)
    return tmp_path / "mine.py"


def refusal(name: str, **options: object) -> str:
    with pytest.raises(UserError) as e:
        build(name, options)
    return str(e.value)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_ins_load_and_say_where_they_come_from(name: str):
    entry = find(name)
    assert entry.distribution == "vtpbench"
    assert entry.load().source


def test_unknown_name():
    assert refusal("fastvv") == "unknown pruner 'fastvv'; did you mean 'fastv'?"
    assert refusal("qqq") == f"unknown pruner 'qqq'; known: {', '.join(sorted(BUILT_IN))}"


def test_options():
    assert build("random", {"seed": 3}).seed == 3  # type: ignore[attr-defined] # an option of this pruner
    assert refusal("fastv", layers=3) == "pruner 'fastv' has no option 'layers'; did you mean 'layer'?"
    assert refusal("visionzip", contextual=-1) == "option contextual=-1: use 0 or more"


@pytest.mark.parametrize(
    ("name", "option", "value", "wanted"),
    [
        ("fastv", "layer", "x", "a valid integer"),
        ("fastv", "layer", 2.5, "a valid integer"),
        ("fastv", "layer", True, "a valid integer"),
        ("fastv", "layer", float("nan"), "a valid integer"),
        ("fastv", "rows", "lst", "'last' or 'all'"),
        ("hiprune", "alpha", "0.1", "a valid number"),
        ("hiprune", "compat", "no", "a valid boolean"),
        ("oc-vtp", "checkpoint", 1, "a valid string"),
    ],
)
def test_options_have_the_type_of_their_field(name: str, option: str, value: object, wanted: str):
    assert refusal(name, **{option: value}) == f"pruner '{name}': option '{option}': input should be {wanted}, not {value!r}"


def test_numbers_of_yaml_are_taken_where_text_is_meant():
    assert build("sparsevlm", {"version": 2}).version == "2"  # type: ignore[attr-defined] # an option of this pruner
    assert build("hiprune", {"alpha": 1}).alpha == 1.0  # type: ignore[attr-defined] # an option of this pruner


@pytest.mark.parametrize("name", BUILT_IN)
def test_annotations_of_built_ins_can_be_read(name: str):
    assert "scope" in get_type_hints(find(name).load())  # else their options would go unchecked


def test_options_of_types_that_only_the_pruner_knows_reach_it(mine: Path):
    code = PRUNER.replace("order: int = 2", "order: int = 2\n    path: 'Secret' = None")
    mine.write_text("from __future__ import annotations\n" + code)
    assert vars(build(f"{mine}:Mine", {"path": "here"}))["path"] == "here"


def test_plugin(provide):
    provide("their-pruners", "theirs = their_pruners_a:Mine")
    assert entries()["theirs"].distribution == "their-pruners"


def test_plugin_is_built(provide):
    provide("their-pruners-b", "theirs = their_pruners_b:Mine", PRUNER)
    assert repr(build("theirs", {"order": 3})) == "Mine(order=3)"


def test_name_of_a_built_in_is_refused(provide):
    provide("their-pruners", "fastv = theirs:Mine")
    assert refusal("random") == "pruner 'fastv' is provided by both vtpbench and their-pruners; uninstall one of them"


def test_name_of_two_strangers_is_refused(provide):
    provide("one-pruner", "same = one:Mine")
    provide("other-pruner", "same = other:Mine")
    message = refusal("same")
    assert message.startswith("pruner 'same' is provided by both ")
    assert "one-pruner" in message
    assert "other-pruner" in message


def test_failing_import_names_the_distribution(provide):
    provide("bad-pruners", "bad = bad_pruners:Mine", "import no_such_module")
    assert refusal("bad") == (
        "pruner 'bad' of bad-pruners cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"
    )
    provide("worse-pruners", "worse = worse_pruners:Mine", "1 / 0")
    assert refusal("worse").startswith("pruner 'worse' of worse-pruners cannot be imported: ZeroDivisionError")
    assert build("random", {})  # the others go on working


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (":Absent", "there is no class Absent; known: "),
        (":Mini", "there is no class Mini; did you mean 'Mine'?"),
        (":NoDataclass", "write @dataclass(frozen=True) above class NoDataclass"),
        (":NoPruner", "NoPruner does not derive from vtpbench.pruners.base.Pruner"),
        (":dataclass", "dataclass does not derive from vtpbench.pruners.base.Pruner"),
        (":Unasked", "Unasked says `nested`, so that its select is not asked; define score or selection_order"),
        (":Idle", "Idle chooses nothing; define score(self, view)"),
        ("", "mine.py' names a file; add its class: "),
    ],
)
def test_what_is_no_pruner_is_refused(target: str, reason: str, mine: Path):
    assert reason in refusal(f"{mine}{target}")


def test_a_file_that_is_not_there_is_likened_to_those_that_are(mine: Path):
    assert f"did you mean '{mine}'?" in refusal(f"{mine.with_name('mien.py')}:Mine")


def test_local_file(mine: Path, monkeypatch: pytest.MonkeyPatch):
    assert repr(build(f"{mine}:Mine", {"order": 1})) == "Mine(order=1)"
    assert find(f"{mine}:Mine").distribution == f"file {mine}"
    monkeypatch.chdir(mine.parent)
    assert repr(build("./mine.py:Mine", {})) == "Mine(order=2)"
    assert refusal("./mine.py:Mine", order=0) == "pruner './mine.py:Mine': order must be at least 1, not 0"
    assert refusal("./absent.py:Mine") == "no pruner file absent.py; did you mean 'mine.py'?"


def test_code_is_hashed(mine: Path):
    def code() -> str:
        return find(f"{mine}:Mine").code()

    before = code()
    assert code() == before
    mine.write_text(PRUNER + "# changed\n")
    after = code()
    assert after != before
    mine.write_text(PRUNER)
    assert code() == before


def test_the_whole_folder_of_a_package_is_hashed(provide, tmp_path: Path):
    provide("their-package", "theirs = their_package.kinds.mine:Mine")
    folder = tmp_path / "their-package" / "their_package" / "kinds"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(PRUNER)
    (folder / "helper.py").write_text("K = 1\n")
    before = find("theirs").code()
    (folder / "helper.py").write_text("K = 2\n")
    assert find("theirs").code() != before


def test_a_pruner_derived_from_another_has_its_code_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "first_pruner.py").write_text(PRUNER)
    (tmp_path / "second.py").write_text(
        "from dataclasses import dataclass\nfrom first_pruner import Mine\n@dataclass(frozen=True)\nclass Second(Mine): pass\n"
    )
    name = f"{tmp_path / 'second.py'}:Second"
    before = find(name).code()
    (tmp_path / "first_pruner.py").write_text(PRUNER + "# edited\n")
    assert find(name).code() != before


def test_built_ins_are_hashed_with_all_their_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def read(name: str) -> set[str]:
        files: list[Path] = []
        original = Path.read_bytes
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda path: files.append(path) or original(path))
            find(name).code()
        return {file.name for file in files if file.parent.name != "pruners"} | {
            f"pruners/{file.name}" for file in files if file.parent.name == "pruners"
        }

    shared = {f"pruners/{name}" for name in SHARED}
    assert read("oc-vtp") >= {"pruner.py", "network.py", "checkpoint.py", "__init__.py", *shared}
    assert read("sparsevlm") >= {"rating.py", "merge.py", *shared}
    assert read("fastv") == {"pruners/fastv.py", *shared}
    assert "pruners/random.py" in shared


def test_what_shared_modules_import_is_hashed_too():
    folder, passive = Path(pruners.__file__).parent, {"errors.py", "lazy.py"}  # messages, and torch itself
    trees = [ast.parse((folder / name).read_text()) for name in SHARED]
    imported = {node.module for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    own = {f"{module.removeprefix('vtpbench.pruners.')}.py" for module in imported if module.startswith("vtpbench.pruners.")}
    assert own - passive <= set(SHARED)


def test_code_differs_between_built_ins():
    codes = [find(name).code() for name in BUILT_IN]
    assert len(set(codes)) == len(codes)

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.suite.suite import load, packaged_suites
from vtpbench.pruners.errors import UserError

GOOD = """\
models: [org/model]
matrix:
  pruners: [random]
  budgets: [48, 11.1%]
  benchmarks: [pope]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text)
    return path


def mistake(folder: Path, text: str, *overrides: str) -> str:
    """Message of the error, with the file called as a user in its folder would call it."""
    with pytest.raises(UserError) as caught:
        load(write(folder, text), overrides)
    message = str(caught.value).replace(f"{folder}/", "")
    assert "\n" not in message
    return message


def test_short_forms_mean_the_long_ones(tmp_path: Path) -> None:
    short = load(write(tmp_path, GOOD))
    text = """\
        name: a
        models: [{path: org/model, label: model, dtype: null, attention: sdpa}]
        matrix:
        - models: [model]
          pruners: [{name: random, label: random, options: {}}]
          budgets: [48, "11.1%"]
          benchmarks: [{pope: {}}]
          seeds: [0]
        batch_size: auto
        generation: {}
        """
    long = load(write(tmp_path, text))
    assert long.model_dump(exclude={"matrix"}) == short.model_dump(exclude={"matrix"})
    assert long.matrix[0].model_copy(update={"models": None}) == short.matrix[0]
    assert short.name == "a"
    assert short.matrix[0].budgets == (BudgetInfo(tokens=48), BudgetInfo(ratio=0.111))
    assert short.matrix[0].seeds == (0,)


def test_the_same_pruner_in_several_rows(tmp_path: Path) -> None:
    text = GOOD.replace("[random]", "[{random: {}}, {label: again, name: random}]")
    pruners = load(write(tmp_path, text)).matrix[0].pruners
    assert [(p.label, p.name) for p in pruners] == [("random", "random"), ("again", "random")]


def test_a_pruner_file_is_labelled_by_its_class(tmp_path: Path) -> None:
    assert load(write(tmp_path, GOOD.replace("[random]", '["my/own.py:Mine"]'))).matrix[0].pruners[0].label == "Mine"


def test_anchors_merge_keys_and_several_matrices(tmp_path: Path) -> None:
    text = """\
        x-common: &common
          pruners: [random]
          benchmarks: [pope]
        models: [{path: org/a, label: small}, {path: org/b, label: large, dtype: bfloat16}]
        dtype: float32
        matrix:
        - {<<: *common, models: [small], budgets: [64]}
        - {<<: *common, models: [large], budgets: [320], benchmarks: [pope, gqa]}
        """
    suite = load(write(tmp_path, text))
    assert [model.dtype for model in suite.models] == ["float32", "bfloat16"]
    assert [[b.label for b in matrix.benchmarks] for matrix in suite.matrix] == [["pope"], ["pope", "gqa"]]
    assert list(suite.benchmarks) == ["pope", "gqa"]
    assert {model.dtype for model in suite.with_dtype("float16").models} == {"float16"}


def test_a_model_folder_beside_the_suite_comes_before_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suites, work = tmp_path / "suites", tmp_path / "work"
    for folder in (suites / "both", work / "both", work / "here"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    models = load(write(suites, GOOD.replace("[org/model]", "[both, here, org/far]"))).models
    assert [model.location for model in models] == [str(suites / "both"), str(work / "here"), "org/far"]
    assert [model.path for model in models] == ["both", "here", "org/far"]


def test_own_and_changed_benchmarks(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "data/pope").mkdir(parents=True)
    text = GOOD.replace(
        "[pope]", "[{pope: {label: POPE, overrides: {dataset_path: data/pope}}}, {label: own, task: t, folder: tasks, metric: m}]"
    )
    changed, own = load(write(tmp_path, text)).matrix[0].benchmarks
    assert (changed.label, changed.task, changed.metric, changed.scale) == ("POPE", "pope", "pope_f1_score", 100)
    assert changed.overrides == {"dataset_path": str(tmp_path / "data/pope")}
    assert (own.folder, own.scale, own.terms) == (tmp_path / "tasks", 1.0, ("m",))


@pytest.mark.parametrize("name", ["demo", "suites/demo.yaml", "demo.yaml"])
def test_packaged_suites_are_found_from_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # a folder of that name is in nobody's way
    assert load(name).name == "demo"


@pytest.mark.parametrize("name", sorted(packaged_suites()))
def test_packaged_suites_are_valid(name: str) -> None:
    assert load(name).name == name


EXAMPLES = re.findall(r"```yaml\n(.*?)```", (Path(__file__).parents[3] / "docs/suites.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_of_the_documentation_are_valid(text: str, tmp_path: Path) -> None:
    assert load(write(tmp_path, text)).matrix


def test_unknown_suite_lists_the_packaged_ones() -> None:
    with pytest.raises(UserError, match=r"no suite file suites/demmo\.yaml, .*did you mean 'demo'\? \(known: .*demo"):
        load("suites/demmo.yaml")


def test_a_file_that_is_no_text_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load(path)


def test_overrides_replace_values_and_reach_into_lists(tmp_path: Path) -> None:
    settings = ("limit=50", "models=[other/one, other/two]", "matrix.budgets=[7]", "models.1={path: other/three, revision: main}")
    suite = load(write(tmp_path, GOOD), [*settings, "generation.max_new_tokens=4"])
    assert suite.limit == 50
    assert [(m.label, m.revision) for m in suite.models] == [("one", None), ("three", "main")]
    assert suite.matrix[0].budgets == (BudgetInfo(tokens=7),)
    assert suite.generation.max_new_tokens == 4
    assert load(write(tmp_path, GOOD + "limit: 3\n"), ["limit="]).limit is None


def test_an_override_leaves_other_uses_of_an_anchor_alone(tmp_path: Path) -> None:
    text = "x-m: &m {pruners: [random], budgets: [4], benchmarks: [pope]}\nmodels: [org/m]\nmatrix: [*m, *m]\n"
    suite = load(write(tmp_path, text), ["matrix.1.budgets=[5]"])
    assert [matrix.budgets[0].tokens for matrix in suite.matrix] == [4, 5]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("limit", "--set limit: write key=value, e.g. --set limit=50"),
        ("limit=0", "--set limit=0: limit: input should be greater than or equal to 1, not 0"),
        ("limits=5", "--set limits=5: unknown key 'limits'; did you mean 'limit'?"),
        ("limit=[", "--set limit=[:1: not valid YAML: "),
        ("matrix.budgets=[4, 0]", "--set matrix.budgets=[4, 0]: a budget must be at least 1 vision token, not 0"),
        ("models.label=x", "--set models.label=x: 'label' stands where a list is; name an item by its number, 0 to 0,"),
        ("models.0.label=x", "--set models.0.label=x: cannot set 'label' inside the single value 'org/model'"),
    ],
)
def test_a_mistake_in_an_override_names_the_override(setting: str, message: str, tmp_path: Path) -> None:
    assert mistake(tmp_path, GOOD, setting).startswith(message)


def test_a_mistake_in_an_option_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--batch-size 0: batch_size: input should be greater than or equal to 1, not 0$"):
        load(write(tmp_path, GOOD), options={"batch_size": "0"})


BLOCK = """\
models:
  - path: org/model
    label: m
matrix:
  pruners:
    - random
    - name: random
      label: again
  budgets:
    - 48
  benchmarks:
    - pope
"""

MISTAKES = {
    "unknown key": (BLOCK + "limits: 5\n", 13, "unknown key 'limits'; did you mean 'limit'?"),
    "unknown matrix key": (BLOCK.replace("  pruners:", "  prunners:"), 5, "unknown key 'prunners'; did you mean 'pruners'?"),
    "unknown model key": (BLOCK.replace("    label: m", "    lable: m"), 3, "unknown key 'lable'; did you mean 'label'?"),
    "unknown pruner": (BLOCK.replace("- random", "- randon", 1), 6, "unknown pruner 'randon'; did you mean 'random'?"),
    "unknown pruner by name": (
        BLOCK.replace("name: random", "name: randon"),
        7,
        "unknown pruner 'randon'; did you mean 'random'?",
    ),
    "unknown option": (
        BLOCK.replace("    - random\n", "    - random:\n        layr: 3\n"),
        7,
        "pruner 'random' has no option 'layr'; known: seed",
    ),
    "bad value of an option": (
        BLOCK.replace("    - random\n", "    - fastv:\n        rows: last\n        layer: 0\n"),
        8,
        "option layer=0: FastV ranks by the layer before the cut",
    ),
    "option of a wrong type": (
        BLOCK.replace("    - random\n", "    - fastv:\n        rows: layer\n        layer: 1\n"),
        7,
        "pruner 'fastv': option 'rows': input should be 'last' or 'all', not 'layer'",
    ),
    "options that do not go together": (
        BLOCK.replace("    - random\n", "    - fastv:\n        layer: 2\n        schedule: paper\n"),
        6,
        "FastV's schedule 'paper' is that of rows 'all' and layer 2",
    ),
    "seed as option": (
        BLOCK.replace("      label: again", "      label: b\n      options: {seed: 1}"),
        9,
        "give seeds as `seeds: ",
    ),
    "unknown benchmark": (BLOCK.replace("- pope", "- poppe"), 12, "unknown benchmark 'poppe'; did you mean 'pope'?"),
    "unknown changed benchmark": (BLOCK.replace("- pope", "- poppe: {scale: 1}"), 12, "unknown benchmark 'poppe'; did you mean"),
    "unknown benchmark key": (
        BLOCK.replace("- pope", "- pope:\n        scale: 1\n        metrics: x"),
        14,
        "unknown key 'metrics'; did you mean 'metric'?",
    ),
    "benchmark without metric": (BLOCK.replace("- pope", "- {label: a, task: b}"), 12, "key 'metric' is missing"),
    "no task folder": (BLOCK.replace("- pope", "- {label: a, task: b, metric: c, folder: nowhere}"), 12, "no task folder "),
    "bad scale": (
        BLOCK.replace("- pope", "- pope:\n        scale: 0"),
        13,
        "matrix.0.benchmarks.0.scale: input should be greater than 0",
    ),
    "budget 0": (BLOCK.replace("- 48", "- 48\n    - 0"), 11, "a budget must be at least 1 vision token, not 0"),
    "budget -1": (BLOCK.replace("- 48", "- -1"), 10, "a budget must be at least 1 vision token, not -1"),
    "budget 0%": (BLOCK.replace("- 48", "- 0%"), 10, "a budget must be above 0% and at most 100%, not 0%"),
    "budget 101%": (BLOCK.replace("- 48", "- 101%"), 10, "a budget must be above 0% and at most 100%, not 101%"),
    "budget 0.5": (
        BLOCK.replace("- 48", "- 0.5"),
        10,
        "a budget is a count of vision tokens (48) or a percentage of them (33.3%), not 0.5",
    ),
    "budget nan%": (BLOCK.replace("- 48", "- nan%"), 10, "a budget is a count of vision tokens (48) or a percentage"),
    "budget true": (BLOCK.replace("- 48", "- true"), 10, "a budget is a count of vision tokens (48) or a percentage"),
    "no budgets": (BLOCK.replace("  budgets:\n    - 48\n", ""), 4, "budgets are missing: give counts"),
    "empty list": (BLOCK.replace("budgets:\n    - 48", "budgets: []"), 9, "the list is empty; give at least one item"),
    "no list": (BLOCK.replace("budgets:\n    - 48", "budgets: 48"), 9, "expected a list: [48]"),
    "empty matrix": (BLOCK.partition("matrix:")[0] + "matrix: []\n", 4, "the list is empty; give at least one item"),
    "no mapping": (BLOCK.partition("matrix:")[0] + "matrix: [1]\n", 4, "matrix.0: expected `key: value` entries, not 1"),
    "same label": (
        BLOCK.replace("      label: again\n", ""),
        7,
        "'random' stands twice in the list; give one of them another label",
    ),
    "same budget": (BLOCK.replace("- 48", "- 48\n    - 48"), 11, "48 stands twice in the list; remove one of them"),
    "same model": (
        BLOCK.replace("    label: m\n", "    label: m\n  - {path: a/b, label: m}\n"),
        4,
        "'m' stands twice in the list",
    ),
    "limit 0": (BLOCK + "limit: 0\n", 13, "limit: input should be greater than or equal to 1, not 0"),
    "benchmark limit 0": (
        BLOCK.replace("- pope", "- pope:\n        limit: 0"),
        13,
        "matrix.0.benchmarks.0.limit: input should be greater than or equal to 1, not 0",
    ),
    "limit seed": (BLOCK + "limit_seed: -1\n", 13, "limit_seed: input should be greater than or equal to 0, not -1"),
    "limit text": (BLOCK + "limit: all\n", 13, "limit: input should be a valid integer, not 'all'"),
    "pictures below 0": (BLOCK + "pictures: -1\n", 13, "pictures: input should be greater than or equal to 0"),
    "batch size 0": (BLOCK + "batch_size: 0\n", 13, "batch_size: input should be greater than or equal to 1"),
    "dtype": (BLOCK + "dtype: fp16\n", 13, "dtype: input should be 'float32', 'bfloat16' or 'float16', not 'fp16'"),
    "sampling": (BLOCK + "generation:\n  temperature: 1\n", 14, "unknown key 'temperature'; "),
    "name": (BLOCK + "name: a/b\n", 13, "name: string should match pattern"),
    "protocol": (
        BLOCK.replace("    label: m\n", "    label: m\n    protocol: fixed672\n"),
        4,
        "a protocol is a way of preprocessing here: write `preprocessing: fixed672`",
    ),
    "no models": (BLOCK[BLOCK.index("matrix:") :], 1, "key 'models' is missing"),
    "missing folder that is no hub id": (BLOCK.replace("org/model", "models/llava/ckpt"), 2, "no checkpoint folder "),
    "missing folder": (BLOCK.replace("org/model", "./nowhere"), 2, "no checkpoint folder "),
    "model label in matrix": (BLOCK.replace("matrix:", "matrix:\n  models: [n]"), 5, "no model is labelled 'n'; known: m"),
    "key twice": (BLOCK + "limit: 1\nbatch_size: 2\nlimit: 2\n", 15, "key 'limit' is given twice"),
    "syntax": (BLOCK + "limit: [1\n", 14, "not valid YAML: "),
    "tab": (BLOCK + "\tlimit: 1\n", 13, "not valid YAML: "),
    "python tag": (BLOCK + "limit: !!python/name:os.system\n", 13, "not valid YAML: could not determine a constructor"),
    "two documents": (BLOCK + "---\na: 1\n", 13, "not valid YAML: "),
    "list": ("- a\n", 1, "expected `key: value` lines"),
    "empty": ("", 1, "expected `key: value` lines; the file is empty"),
    "label of the floor": (
        BLOCK.replace("name: random\n      label: again", "name: grid\n      label: random").replace("    - random\n", ""),
        7,
        "'random' is a row that comes by itself; give 'grid' another label",
    ),
    "label of the denominator": (
        BLOCK.replace("name: random\n      label: again", "name: grid\n      label: vanilla"),
        8,
        "'vanilla' is a row that comes by itself; give 'grid' another label",
    ),
    "label clash": (
        BLOCK.replace("matrix:\n", "matrix:\n- {pruners: [{label: again, name: vanilla}], benchmarks: [gqa]}\n-\n"),
        9,
        "label 'again' stands for something else in an earlier matrix",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_every_mistake_names_its_line_and_fix(case: str, tmp_path: Path) -> None:
    text, line, message = MISTAKES[case]
    assert mistake(tmp_path, text).startswith(f"a.yaml:{line}: {message}")


def test_the_first_mistake_of_several_is_named(tmp_path: Path) -> None:
    assert mistake(tmp_path, "limit: 0\n" + BLOCK.replace("- pope", "- poppe")).startswith("a.yaml:1: limit")


def test_files_that_options_name_are_found_beside_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/a.safetensors").touch()
    monkeypatch.chdir(tmp_path / "weights")
    file = write(tmp_path, GOOD.replace("[random]", "[random, oc-vtp: {checkpoint: weights/a.safetensors}]"))
    (_, pruner) = load(file).matrix[0].pruners
    assert pruner.options == {"checkpoint": "weights/a.safetensors"}
    assert pruner.files == {"checkpoint": str(tmp_path / "weights/a.safetensors")}


@pytest.mark.parametrize(
    ("pruner", "option", "name", "is_file"),
    [
        ("oc-vtp", "checkpoint", "mine.safetensors", True),
        ("oc-vtp", "checkpoint", "./dummy", True),
        ("oc-vtp", "checkpoint", "dummy", False),
        ("tome", "order", "raster", False),
        ("sparsevlm", "version", "1.5", False),
    ],
)
def test_a_file_needs_no_folder_before_its_name_and_a_value_is_none(
    pruner: str, option: str, name: str, is_file: bool, tmp_path: Path
) -> None:
    (tmp_path / name).touch()
    (chosen,) = load(write(tmp_path, GOOD.replace("[random]", f"[{pruner}: {{{option}: '{name}'}}]"))).matrix[0].pruners
    assert chosen.options == {option: name}
    assert chosen.files == ({option: str((tmp_path / name).resolve())} if is_file else {})


def test_the_embedded_model_is_at_hand_wherever_a_suite_lies(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()  # nor can a folder of that name hide it, unless it is a checkpoint
    (tmp_path / "mine.yaml").write_text(BLOCK.replace("org/model", "demo"))
    (model,) = load(tmp_path / "mine.yaml").models
    assert (Path(model.location) / "model.safetensors").is_file()
    assert model.path == "demo"
    (tmp_path / "demo" / "config.json").touch()
    (model,) = load(tmp_path / "mine.yaml").models
    assert model.location == str(tmp_path / "demo")

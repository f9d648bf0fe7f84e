from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from pruner_options import BEHIND, JOINING, ONEVISION, QWEN

from vtpbench.harness.check import CheckReport, PropertyResult, check, matrix, render
from vtpbench.harness.check.properties import PROPERTIES
from vtpbench.harness.check.subject import PrunerOnModel
from vtpbench.harness.models.llava import Llava
from vtpbench.harness.models.tiny import TINY, tiny_llava
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.suite.suite import load
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.oc_vtp.checkpoint import Header, save
from vtpbench.pruners.oc_vtp.dims import Dims
from vtpbench.pruners.oc_vtp.network import OCPruner
from vtpbench.pruners.registry import BUILT_IN, build

BUILDERS = {name: cache(builder) for name, builder in TINY.items()}
BROKEN = Path(__file__).with_name("broken_pruners.py")
DOCS = Path(__file__).parents[3] / "docs" / "pruners.md"
MERGES = {"masking": "n/a"}
CANNOT = {
    "random": {},
    "oc-vtp": {},
    "fastv": {},
    "sparsevlm": MERGES,
    "visionzip": MERGES,
    "pyramiddrop": {},
    "hiprune": {},
    "prumerge": MERGES,
    "prumerge-plus": MERGES,
    "dart": {},
    "fastervlm": {},
    "vispruner": {},
    "divprune": {},
    "tome": MERGES,
    "holov": {},
    "vscan": {**MERGES, "keep-all": "infeasible"},  # half as many again arrive at the language model
    "hired": {},
    "cdpruner": {},
    "trim": MERGES,
    "sequence": {"keep-all": "infeasible"},  # the first leaves three quarters
    "grid": {},
    "pool": MERGES,
    "downsample": {"keep-all": "n/a", "indices": "n/a", "masking": "n/a"},
    "text-only": {"keep-all": "n/a", "masking": "n/a"},
}
"""What cannot hold, by pruner."""
CANNOT_HERE = {
    ("visionzip", "llava"): {**MERGES, "keep-all": "n/a"},  # CLS takes a place of the budget
    ("visionzip", "llava_next"): {**MERGES, "keep-all": "n/a"},
    **{
        (pruner, family): {p.name: "unsupported" for p in PROPERTIES}
        for family in JOINING
        for pruner in (
            # positions on several axes are not renumbered
            *(("sparsevlm", "pyramiddrop", "vscan") if family in QWEN else ()),
            "tome",  # no token can leave a tower that merges patches
            *("cdpruner", "trim"),  # it has no text side
            "hired",  # nor CLS
        )
    },
}
for name, cannot in CANNOT.items():  # newlines have no number by which masking could tell them
    CANNOT_HERE[name, ONEVISION] = {**cannot, **MERGES}
for name in ("cdpruner", "trim", "hired", "downsample", "tome"):  # it has neither text side, nor CLS, nor tiles of another size
    CANNOT_HERE[name, ONEVISION] = {p.name: "unsupported" for p in PROPERTIES}
SEQUENCE_OF_MERGED = {**MERGES, "keep-all": "infeasible"}
KEEP, POST = {"positions": "keep"}, {"stage": "post"}
ALSO = (("pyramiddrop", KEEP, {}), ("sparsevlm", KEEP, MERGES), ("tome", POST, MERGES), ("vscan", KEEP, CANNOT["vscan"]))
DOCUMENTED = [
    (name, options, family, cannot | (MERGES if family == ONEVISION else {})) for name, options, cannot in ALSO for family in TINY
]
VARIANTS = [
    *DOCUMENTED,
    ("oc-vtp", {"pad": "none"}, "llava", {"keep-all": "n/a"}),
    ("dart", {"text_pivots": 40, "layer": 1}, "llava", {}),
    ("fastv", {"rows": "all"}, "llava", {}),
    ("prumerge", {"order": "reference"}, "llava", MERGES),
    ("prumerge", {"count": "outliers"}, "llava_next", {**MERGES, "keep-all": "n/a"}),
    ("prumerge-plus", {"count": "outliers"}, "qwen2_5_vl", {**MERGES, "keep-all": "n/a"}),
    ("sparsevlm", {"version": "2"}, "llava", {}),
    ("sparsevlm", {"version": "2"}, "qwen2_5_vl", {}),
    ("hiprune", {"neighbours": "grid"}, "llava", {}),
    ("holov", {"scaling": "image"}, "llava_next", {}),
    ("hired", {"regions": "bands"}, "llava_next", {}),
    *(("vscan", {**KEEP, "merge": False, "first": 1.0}, family, {}) for family in TINY if family != ONEVISION),
    ("trim", {"count": "outliers", "similarity": "cosine"}, "llava_next", {**MERGES, "keep-all": "n/a"}),
    ("sequence", {"first": "pool", "second": "pyramiddrop", "second_options": KEEP}, "qwen2_5_vl", SEQUENCE_OF_MERGED),
    ("sequence", {"first": "visionzip", "second": "sparsevlm"}, "llava", SEQUENCE_OF_MERGED),
    ("visionzip", {"order": "reference"}, "llava_next", {**MERGES, "keep-all": "n/a"}),
]


def expected(name: str, family: str) -> dict[str, str]:
    return CANNOT_HERE.get((name, family), CANNOT[name])


def cases() -> list:
    found = []
    defaults = [(name, {}, family, expected(name, family)) for name in CANNOT for family in TINY]
    for name, options, family, cannot in [*defaults, *VARIANTS]:
        label = "-".join([name, *map(str, options.values()), family])
        found.append(pytest.param(name, options, family, cannot, id=label))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("oc-vtp") / "oc-vtp.safetensors"
    save(file, OCPruner(Dims(32, 32, 16, 32)).state_dict(), Header())
    return str(file)


@pytest.mark.parametrize(("name", "options", "family", "cannot"), cases())
def test_built_in(name: str, options: dict[str, str], family: str, cannot: dict[str, str], trained: str):
    own = {"checkpoint": trained} if name == "oc-vtp" else {}
    report = check(name, {**options, **own}, [family], BUILDERS)
    found = {result.property: result.status for result in report.results}
    assert found == {p.name: cannot.get(p.name, "pass") for p in PROPERTIES}, render(report)


def test_all_built_ins_are_judged():
    assert CANNOT.keys() == BUILT_IN.keys() - {"vanilla"}  # what the others are compared with


def test_documented_matrix_is_the_one_tested():
    def judged(name: str, options: dict[str, str], cannot: dict[str, dict[str, str]]) -> CheckReport:
        results = (PropertyResult(family, p.name, cannot[family].get(p.name, "pass")) for family in TINY for p in PROPERTIES)
        return CheckReport(name, options, "vtpbench", tuple(results))

    defaults = [judged(name, {}, {family: expected(name, family) for family in TINY}) for name in CANNOT]
    kept = [
        judged(name, options, {family: cannot for n, _, family, cannot in DOCUMENTED if n == name}) for name, options, _ in ALSO
    ]
    assert matrix(sorted([*defaults, *kept], key=lambda report: report.pruner)) in DOCS.read_text()


def test_a_pruner_that_nothing_can_be_said_of_is_no_failure_of_rules():
    report = CheckReport(
        "oc-vtp", {}, "vtpbench", tuple(PropertyResult("llava", p.name, "unsupported", "no weights") for p in PROPERTIES)
    )
    assert not report.ok
    assert render(report).endswith("oc-vtp of vtpbench: could not be judged\n")


@pytest.mark.parametrize(
    ("broken", "rules"),
    {
        "Sound": set(),
        "SoundInSteps": set(),
        "SoundInside": set(),
        "Averaging": set(),
        "Changing": {"keep-all"},
        "OneTooFew": {"exact-count"},
        "OneTooFewInside": {"exact-count"},
        "Unsorted": {"indices"},
        "Repeating": {"indices"},
        "GlobalRandom": {"seed"},
        "Reseeding": {"seed"},
        "Neighbourly": {"batch"},
        "Unnested": {"batch"},
        "Stateful": {"batch"},
        "Lying": {"indices"},
        "LyingInside": {"indices"},
        "Outgrowing": {"exact-count"},
        "OutgrowingInside": {"exact-count"},
        "ByPlaceInBatch": {"order"},
        "Counting": {"seed", "order"},
        "Greedy": {"budget"},
        "Crashing": {p.name for p in PROPERTIES},
    }.items(),
)
def test_a_broken_rule_is_named(broken: str, rules: set[str]):
    report = check(f"{BROKEN}:{broken}", {}, ["llava"], BUILDERS)
    failed = {result.property: result.reason for result in report.results if result.status == "fail"}
    assert rules <= failed.keys()
    assert report.ok == (not rules)
    assert all(failed.values())
    if not rules:
        assert not failed


def notes_of(report: CheckReport) -> list[str]:
    return [line for line in render(report).splitlines() if line.startswith("FAIL: ")]


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(BROKEN.read_text().splitlines(), start=1) if text in line)


def test_an_exception_in_a_plugin_is_told_once_with_its_line():
    report = check(f"{BROKEN}:Misfitting", {}, ["llava", "llava_next"], BUILDERS)
    line = f"broken_pruners.py:{line_of('torch.ones(view.n + view.cut.keep)')}"
    (note,) = notes_of(report)
    assert re.fullmatch(rf"FAIL: all properties on llava, llava_next: RuntimeError: The size of tensor .*, at {line}", note)
    assert {result.line for result in report.results} == {line}
    assert len({result.reason for result in report.results}) > 2  # with other numbers each time


def test_what_a_plugin_gave_wrong_is_told_without_a_line_of_the_harness():
    (note,) = notes_of(check(f"{BROKEN}:Fractions", {}, ["llava", "llava_next"], BUILDERS))
    assert note == "FAIL: all properties on llava, llava_next: Fractions chose indices in float32; give int64"


def test_a_plugin_that_cannot_be_made_or_imported_is_told_with_its_line(tmp_path: Path):
    line = line_of("def __post_init__") + 1
    message = rf"cannot be made: ZeroDivisionError: no tokens, at broken_pruners\.py:{line}$"
    with pytest.raises(UserError, match=message):
        check(f"{BROKEN}:Unmakeable", {}, ["llava"], BUILDERS)
    (tmp_path / "halfway.py").write_text("import math\n\nHALF = math.no_such\n")
    with pytest.raises(UserError, match=r"cannot be imported: AttributeError: .* 'no_such', at halfway\.py:3$"):
        check(f"{tmp_path}/halfway.py:Half", {}, ["llava"], BUILDERS)


def test_an_unreachable_budget_is_no_failure_but_no_success_either():
    report = check(f"{BROKEN}:Unreachable", {}, ["llava"], BUILDERS)
    assert {(result.status, result.reason) for result in report.results} == {("infeasible", "no budget suits it")}
    assert not report.ok


def test_a_leaked_hook_is_found():
    class Leaking(Llava):
        def encode(self, *arguments):
            self.model.register_forward_pre_hook(lambda module, args: None)
            return super().encode(*arguments)

    @cache
    def build(attention: str, dtype: torch.dtype) -> Llava:
        f = tiny_llava(attention, dtype)
        return Leaking(f.model, f.tokenizer, f.image_processor, f.chat_template, f.preprocessing)

    assert failed_with(build) == {"hooks": "1 hooks remain after a run"}


def test_a_hook_that_leaks_when_a_later_cut_fails_is_found(monkeypatch: pytest.MonkeyPatch):
    generate = Pipeline.generate

    def careless(self: Pipeline, *arguments):
        hook = self.model.model.register_forward_pre_hook(lambda module, args: None)
        found = generate(self, *arguments)
        hook.remove()
        return found

    monkeypatch.setattr(Pipeline, "generate", careless)
    build = cache(tiny_llava)
    assert failed_with(build) == {}  # its one cut is before
    assert failed_with(build, "SoundInSteps") == {"hooks": "1 hooks remain after an exception at layer 3"}


def test_merging_outside_torch_cannot_be_followed():
    report = check(f"{BROKEN}:Elsewhere", {}, ["llava"], BUILDERS)
    (indices,) = (result for result in report.results if result.property == "indices")
    assert (indices.status, indices.reason) == ("n/a", "it merges tokens outside torch: no derivative tells of which")


def test_the_number_of_pictures_in_a_pass_is_put_back():
    family = BUILDERS["llava"](attention="sdpa", dtype=torch.float32)
    before = family.images_per_pass
    check("random", {}, ["llava"], BUILDERS)
    assert family.images_per_pass == before


def test_a_removal_that_is_none_is_found():
    class Shifting(Llava):
        def in_sequence(self, image):
            return replace(image, features=image.features.roll(1, 0))

    @cache
    def build(attention: str, dtype: torch.dtype) -> Llava:
        f = tiny_llava(attention, dtype)
        return Shifting(f.model, f.tokenizer, f.image_processor, f.chat_template, f.preprocessing)

    assert "masking" in failed_with(build)


def test_another_result_on_another_kernel_is_found():
    @cache
    def build(attention: str, dtype: torch.dtype) -> Llava:
        return tiny_llava(attention, dtype, seed=int(attention == "eager"))

    assert failed_with(build).keys() == {"kernel"}


def test_a_crash_in_bfloat16_is_found():
    @cache
    def build(attention: str, dtype: torch.dtype) -> Llava:
        if dtype == torch.bfloat16:
            raise RuntimeError("not implemented for BFloat16")
        return tiny_llava(attention, dtype)

    assert failed_with(build) == {"bfloat16": "RuntimeError: not implemented for BFloat16"}


def failed_with(build, name: str = "Sound") -> dict[str, str]:
    report = check(f"{BROKEN}:{name}", {}, ["tiny"], {"tiny": build})
    return {result.property: result.reason for result in report.results if result.status == "fail"}


@pytest.fixture
def tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Code of the documentation's worked example, saved in the working folder as it says."""
    code = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)[0]
    (tmp_path / "faster.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    return code


def test_the_example_of_the_documentation_conforms(tutorial: str):
    lines = [line for line in tutorial.splitlines() if line.strip()]
    assert f"## A new one in {len(lines)} lines\n" in DOCS.read_text()
    report = check("./faster.py:Faster", {}, None, BUILDERS)
    statuses = {(result.family, result.status) for result in report.results}
    assert statuses == {("llava", "pass"), ("llava_next", "pass"), *((name, "unsupported") for name in BEHIND)}, render(report)
    assert "the vision tower of qwen2_5_vl has no CLS token" in render(report)


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_the_example_of_the_documentation_is_fastervlm(family: str, tutorial: str):
    def kept(name: str) -> list[list[int]]:
        subject = PrunerOnModel(build(name, {}), BUILDERS[family])
        return [choice.keep.index.tolist() for choice in subject.base.choices]

    assert kept("./faster.py:Faster") == kept("fastervlm") != kept("hiprune")


def test_the_documented_mistake_is_told_as_it_says(tutorial: str):
    Path("faster.py").write_text(tutorial.replace('view.get("cls")', 'view.get("keys")'))
    report = check("./faster.py:Faster", {}, ["llava", "llava_next"], BUILDERS)
    (note,) = notes_of(report)
    assert f"    {note}\n" in DOCS.read_text()


def test_the_documented_suite_takes_the_example(tutorial: str):
    (text,) = (block for block in re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), flags=re.DOTALL) if "faster.py" in block)
    Path("own.yaml").write_text(text)
    labels = [spec.label for matrix in load("own.yaml").matrix for spec in matrix.pruners]
    assert labels == ["random", "Faster", "layer 12"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fastvv", {}), "unknown pruner 'fastvv'; did you mean 'fastv'?"),
        (("fastv", {"layers": 3}), "pruner 'fastv' has no option 'layers'; did you mean 'layer'?"),
        (("fastv", {}, ["lava"]), "unknown model family 'lava'; did you mean 'llava'?"),
    ],
)
def test_mistakes_of_the_user(arguments: tuple, message: str):
    with pytest.raises(UserError) as e:
        check(*arguments, builders=BUILDERS)
    assert str(e.value) == message


def made_report(*failed: str) -> CheckReport:
    def judge(family: str, name: str) -> PropertyResult:
        if family == "b":
            return PropertyResult("b", name, "unsupported", "it has no CLS | token")
        return PropertyResult("a", name, "fail", "why") if name in failed else PropertyResult("a", name, "pass")

    return CheckReport("mine", {"layer": 2}, "theirs", tuple(judge(family, p.name) for family in "ab" for p in PROPERTIES))


def test_plain_table():
    lines = render(made_report("seed", "order")).splitlines()
    assert lines[0].split() == ["property", "a", "b", "meaning"]
    assert lines[4].split()[:3] == ["seed", "FAIL", "unsupported"]
    assert lines[-3:] == [
        "FAIL: seed, order on a: why",
        "unsupported: all properties on b: it has no CLS | token",
        "mine of theirs: does not conform",
    ]
    assert render(made_report()).splitlines()[-1] == "mine of theirs: conforms"


def test_markdown_table():
    lines = render(made_report("seed"), "markdown").splitlines()
    assert lines[:2] == ["| property | a | b | meaning |", "| --- | --- | --- | --- |"]
    assert lines[5].startswith("| seed | FAIL | unsupported |")
    assert lines[-1] == "- unsupported: all properties on b: it has no CLS | token"


def test_json_holds_everything():
    data = json.loads(render(made_report("seed"), "json"))
    assert (data["ok"], data["pruner"], data["options"], data["distribution"]) == (False, "mine", {"layer": 2}, "theirs")
    assert data["results"][3] == {"family": "a", "property": "seed", "status": "fail", "reason": "why", "line": ""}
    assert len(data["results"]) == 2 * len(PROPERTIES)


def test_matrix_counts_by_family_and_names_options():
    assert matrix([made_report("seed"), made_report()]).splitlines() == [
        "| pruner | a | b |",
        "| --- | --- | --- |",
        f"| mine, `layer: 2` | {len(PROPERTIES) - 1} pass, 1 FAIL | unsupported |",
        f"| mine, `layer: 2` | {len(PROPERTIES)} pass | unsupported |",
    ]


def test_unknown_format():
    with pytest.raises(UserError, match="use plain, markdown, json"):
        render(made_report(), "html")  # type: ignore[arg-type] # what a user may ask for

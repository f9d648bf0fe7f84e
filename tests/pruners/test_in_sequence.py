"""Two pruners in sequence: one budget, the same choices as one after the other by hand, and what cannot stand in one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vtpbench.harness.check.subject import PrunerOnModel
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import RecordedSelection, Schedule, resolve
from vtpbench.harness.suite.specs import PrunerSpec, build_described
from vtpbench.harness.suite.suite import load
from vtpbench.pruners.base import Cut, Grid, ModelShape, Pruner, Selection, TokenView, average_in
from vtpbench.pruners.errors import Infeasible, Unsupported, UserError
from vtpbench.pruners.in_sequence import Sequence
from vtpbench.pruners.registry import build

LLAVA = ModelShape("llava", 32, 32, 8, 24, 8, 22, True, tuple(range(24)), tiles=1)
KEEP = {"positions": "keep"}
PAIRS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("vispruner", {}, "fastv", {}),
    ("visionzip", {}, "sparsevlm", KEEP),  # its CLS row continues no token (-1), others are merged
    ("pool", {}, "pyramiddrop", KEEP),
    ("divprune", {}, "dart", {"layer": 1}),
    ("random", {"seed": 3}, "fastv", {"layer": 1, "rows": "all"}),
]


def sequence(first: str = "vispruner", second: str = "fastv", share: float = 0.75, **options: Any) -> Sequence:
    found = build("sequence", {"first": first, "second": second, "share": share, **options})
    assert isinstance(found, Sequence)
    return found


@pytest.mark.parametrize(
    ("budget", "share", "layer", "cuts"),
    [
        (192, 0.5, 2, (Cut(0, 288), Cut(2, 186))),  # 2 * 288 + 30 * 185.6 = 32 * 192
        (128, 0.5, 2, (Cut(0, 288), Cut(2, 117))),
        (64, 0.5, 2, (Cut(0, 288), Cut(2, 49))),
        (64, 0.25, 16, None),
        (64, 0.2, 16, (Cut(0, 115), Cut(16, 13))),
    ],
)
def test_schedules(budget: int, share: float, layer: int, cuts: tuple[Cut, ...] | None) -> None:
    pruner = sequence(share=share, second_options={"layer": layer})
    if cuts is None:
        with pytest.raises(Infeasible, match="FastV with layer=16 keeps all 144 tokens in 16 of 32 layers: at least 73"):
            pruner.cuts(budget, 576, LLAVA)
    else:
        assert pruner.cuts(budget, 576, LLAVA) == cuts


@pytest.mark.parametrize("second", ["fastv", "dart", "pyramiddrop", "sparsevlm"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_every_budget_is_met_or_infeasible(second: str, share: float) -> None:
    pruner, reached = sequence(second=second, share=share), 0
    for budget in range(1, 577):
        try:
            cuts = pruner.cuts(budget, 576, LLAVA)
        except Infeasible:
            continue
        reached += 1
        left = round(share * 576)
        assert cuts[0] == Cut(0, left)
        assert budget < left
        assert cuts[1:] == build(second, {}).cuts(budget, left, LLAVA)
        assert abs(average_in(cuts, 576, 32) - budget) <= 1
        assert pruner.expected_average(budget, 576, LLAVA) == budget
    assert reached >= 0.5 * left


def test_a_budget_that_the_first_does_not_exceed_is_infeasible() -> None:
    for budget in (288, 300):
        with pytest.raises(Infeasible, match=f"leaves 288 of 576 tokens, which must be more than the budget of {budget}"):
            sequence(share=0.5).cuts(budget, 576, LLAVA)


def test_tiles_with_shares_of_their_own_leave_equally_many() -> None:
    shape = replace(LLAVA, tiles=5)
    assert sequence(share=0.3).cuts(320, 2880, shape)[0] == Cut(0, 865)  # 864 cannot be shared by five tiles
    assert sequence("divprune", share=0.3).cuts(320, 2880, shape)[0] == Cut(0, 864)


def test_a_published_list_of_the_second_is_audited_as_such() -> None:
    cited = sequence(second_options={"rows": "all", "schedule": "paper"})
    with pytest.raises(Infeasible, match="published schedules for"):
        cited.cuts(192, 576, LLAVA)
    assert cited.cuts(192, 768, LLAVA) == (Cut(0, 576), Cut(2, 180))
    assert cited.expected_average(192, 768, LLAVA) == 204.75


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}-{pair[2]}")
@pytest.mark.parametrize("family", TINY)
def test_counts_are_those_of_the_schedule(family: str, pair: tuple[str, dict[str, Any], str, dict[str, Any]]) -> None:
    model, pruner = TINY[family](), sequence(pair[0], pair[2], first_options=pair[1], second_options=pair[3])
    run = PrunerOnModel(pruner, lambda **_: model).run()
    for key, image in run.images.items():
        cuts, layers = image.schedule.cuts, model.shape.decoder_layers
        assert len(cuts) >= 2
        counts = [next(cut.keep for cut in reversed(cuts) if cut.at <= layer) for layer in range(layers)]
        assert run.per_layer(key) == counts
        assert abs(sum(counts) / layers - max(1, round(image.original / 2))) <= 1
        assert counts[0] == cuts[0].keep < image.original


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}-{pair[2]}")
@pytest.mark.parametrize("family", TINY)
def test_it_is_one_pruner_after_the_other(family: str, pair: tuple[str, dict[str, Any], str, dict[str, Any]]) -> None:
    """The first alone with the tokens that it is to leave; then the second as on an image that had only these."""
    model, first, second = TINY[family](), build(pair[0], pair[1]), build(pair[2], pair[3])
    subject = PrunerOnModel(sequence(pair[0], pair[2], first_options=pair[1], second_options=pair[3]), lambda **_: model)
    together = subject.run()
    asked = subject.questions
    images = [image for prompt in asked for image in prompt.images]
    keys = [key for prompt in asked for key in prompt.image_keys]
    texts = [prompt.text for prompt in asked for _ in prompt.images]

    def entering(n: int) -> int:
        return next(image.schedule.cuts[0].keep for image in together.images.values() if image.original == n)

    alone = Pipeline(model, first, entering)
    chosen = alone.select(alone.encode(images), keys, texts)
    left = [
        replace(image, schedule=behind(second, max(1, round(image.original / 2)), len(image.index), model.shape))
        for image in (chosen[number] for number in range(len(images)))
    ]
    numbers = iter(left)
    batch = alone.assemble([prompt.text for prompt in asked], [[next(numbers) for _ in prompt.images] for prompt in asked])
    answers, trace = Pipeline(model).generate(batch, 3)
    for n in trace.kept:
        assert trace.kept[n].keys() == together.trace.kept[n].keys()
        for at, places in trace.kept[n].items():
            assert torch.equal(places, together.trace.kept[n][at])
    assert trace.per_layer == together.trace.per_layer
    assert Pipeline(model, subject.pruner, lambda n: max(1, round(n / 2))).run(asked, 3).texts == answers


def behind(second: Any, budget: int, n: int, shape: ModelShape) -> Schedule:
    return resolve(second, budget, n, Grid(1, 1, n), shape)


def test_each_sees_its_own_cuts_from_0() -> None:
    model, pruner = TINY["llava"](), sequence(second="pyramiddrop")
    seen: list[tuple[str, int, int]] = []

    def note(name: str, stage: Pruner) -> None:
        choose = stage.apply

        def noted(view: TokenView) -> Selection:
            seen.append((name, view.cut.at, view.stage))
            return choose(view)

        object.__setattr__(stage, "apply", noted)

    note("first", pruner.before)
    note("second", pruner.inside)
    choices: list[RecordedSelection] = []
    subject = PrunerOnModel(pruner, lambda **_: model)
    subject.run(subject.questions[:1], observer=lambda view, keep: choices.append(RecordedSelection(view, keep)))
    at = [cut.at for cut in pruner.cuts(8, 16, model.shape)[1:]]
    assert seen == [("first", 0, 0), *(("second", layer, stage) for stage, layer in enumerate(at))]
    assert [choice.view.stage for choice in choices] == list(range(1 + len(at)))


def test_what_is_said_of_a_sequence_comes_from_whom_it_concerns() -> None:
    scanned = sequence("vispruner", "pyramiddrop")
    assert (scanned.scope, scanned.position_rule, scanned.adaptive, scanned.reads_question) == ("tile", "renumber", False, False)
    plain = sequence("divprune", "fastv")
    assert (plain.scope, plain.position_rule) == ("image", "keep")
    assert plain.needs(LLAVA) == build("divprune", {}).needs(LLAVA) | build("fastv", {}).needs(LLAVA)
    with pytest.raises(Unsupported, match="PyramidDrop renumbers positions"):
        scanned.needs(replace(LLAVA, multi_axis_positions=True))
    assert hash(scanned) == hash(sequence("vispruner", "pyramiddrop"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "option share=0.0: a sequence's first pruner leaves more than 0 and less than 1"),
        ({"share": 1.0}, "option share=1.0: "),
        ({"share": float("nan")}, "option share=nan: "),
        ({"share": "half"}, "pruner 'sequence': option 'share': input should be a valid number"),
        ({"first": "vispruneer"}, "unknown pruner 'vispruneer'; did you mean 'vispruner'?"),
        ({"second": "fastvv"}, "unknown pruner 'fastvv'; did you mean 'fastv'?"),
        ({"second_options": {"layr": 3}}, "pruner 'fastv' has no option 'layr'; did you mean 'layer'?"),
        ({"first_options": {"step": 0}}, "option step=0: use 1 or more"),
        ({"first": "sequence"}, "pruner 'sequence' cannot be the first of a sequence: it is one itself"),
        ({"second": "sequence"}, "pruner 'sequence' cannot be the second of a sequence: it is one itself"),
        ({"first": "fastv"}, "pruner 'fastv' cannot be the first of a sequence: it does not just cut to a count before"),
        ({"first": "vscan"}, "pruner 'vscan' cannot be the first of a sequence: it does not just cut to a count before"),
        ({"first": "vanilla"}, "pruner 'vanilla' cannot be the first of a sequence: it does not just cut"),
        ({"first": "text-only"}, "pruner 'text-only' cannot be the first of a sequence: it does not just cut"),
        ({"first": "tome"}, "pruner 'tome' cannot be the first of a sequence: it acts on the image or inside the vision tower"),
        (
            {"first": "prumerge", "first_options": {"count": "outliers"}},
            "pruner 'prumerge' cannot be the first of a sequence: its",
        ),
        ({"second": "vispruner"}, "pruner 'vispruner' cannot be the second of a sequence: it does not cut inside the"),
        ({"second": "vscan"}, "pruner 'vscan' cannot be the second of a sequence: it does not cut inside the"),
    ],
)
def test_what_cannot_stand_in_a_sequence_is_refused_in_a_line(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build("sequence", options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


OWN = """
from dataclasses import dataclass
from vtpbench.pruners.base import Cut, Pruner

@dataclass(frozen=True)
class Late(Pruner):
    layer: int = 2

    def cuts(self, budget, n, shape):
        return (Cut(0 if shape.decoder_layers < 10 else self.layer, budget),)

    def score(self, view):
        return view.features.norm(dim=-1)
"""


def test_a_stage_that_turns_out_to_cut_elsewhere_is_unsupported(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    pruner = sequence(second=f"{tmp_path / 'own.py'}:Late")
    assert pruner.cuts(192, 576, LLAVA) == (Cut(0, 432), Cut(2, 192))
    with pytest.raises(Unsupported, match="are no sequence here: they plan 432 at layer 0, 192 at layer 0"):
        pruner.cuts(192, 576, replace(LLAVA, decoder_layers=6))


SUITE = """\
models: [org/model]
matrix:
  pruners:
    - sequence: [vispruner: {share: 0.5}, fastv: {layer: 3}]
      label: VisPruner + FastV
    - sequence: [divprune, fastv]
  budgets: [64]
  benchmarks: [pope]
"""


def suite(folder: Path, text: str = SUITE) -> tuple[PrunerSpec, ...]:
    (folder / "a.yaml").write_text(text)
    return tuple(load(folder / "a.yaml").matrix[0].pruners)


def test_a_suite_names_them_in_a_list(tmp_path: Path) -> None:
    named, plain = suite(tmp_path)
    assert (named.label, plain.label) == ("VisPruner + FastV", "divprune + fastv")
    pruner, info = build_described(named)
    assert pruner == Sequence("vispruner", 0.5, "fastv", {}, {"layer": 3})
    assert info.options["second_options"] == {"layer": 3, "rows": "last", "schedule": "fair"}
    again = build(info.name, json.loads(json.dumps(info.options)))
    assert again == pruner
    assert PrunerSpec.model_validate(named.model_dump()).options == named.options
    spelt = PrunerSpec.model_validate({"sequence": {"share": 0.5, "second_options": {"layer": 3, "rows": "last"}}})
    assert build_described(spelt)[1].options == info.options


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("[divprune, fastv]", "[divprune]", 6, "a sequence has two pruners, one before the language model and one inside it"),
        ("[divprune, fastv]", "[divprune, fastv, dart]", 6, "a sequence has two pruners"),
        ("[divprune, fastv]", "[divprune, 3]", 6, "write a pruner of a sequence as `name`, or `name: {option: value}`"),
        ("[divprune, fastv]", "[divprune, fastv: 3]", 6, "write a pruner of a sequence as"),
        ("[divprune, fastv]", "[divprune, fastvv]", 6, "unknown pruner 'fastvv'; did you mean 'fastv'?"),
        ("share: 0.5", "share: 1.5", 4, "option share=1.5"),
        ("layer: 3", "layr: 3", 4, "pruner 'fastv' has no option 'layr'; did you mean 'layer'?"),
        ("layer: 3", "share: 3", 4, "pruner 'fastv' has no option 'share'"),
        ("label: Vis", "name: Vis", 4, "beside `sequence` only a `label` may stand"),
        ("label: Vis", "lable: Vis", 5, "unknown key 'lable'; did you mean 'label'?"),
    ],
)
def test_mistakes_in_a_suite_name_their_line(old: str, new: str, line: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        suite(tmp_path, SUITE.replace(old, new))
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(f"a.yaml:{line}: {message}")
    assert "\n" not in str(caught.value)


def test_the_source_of_both_is_part_of_what_was_measured(tmp_path: Path) -> None:
    def code(text: str) -> str:
        (tmp_path / "own.py").write_text(text)
        return build_described(PrunerSpec.model_validate({"sequence": ["vispruner", f"{tmp_path / 'own.py'}:Late"]}))[1].code

    before = code(OWN)
    assert code(OWN) == before
    assert code(OWN + "\n# another source\n") != before


def test_files_of_both_are_part_of_what_was_measured() -> None:
    """One that was trained says by a hash which weights it has."""
    pruner = sequence("oc-vtp", first_options={"checkpoint": "dummy"})
    assert sequence().fingerprint(LLAVA) == ""
    assert bool(pruner.fingerprint(LLAVA)) == bool(pruner.before.fingerprint(LLAVA))


def test_merged_rows_reach_the_second_as_others_do() -> None:
    """A row that continues no token (-1) can stay, and stays without a place."""
    pruner = sequence("visionzip", "fastv", second_options={"layer": 1})
    view = TokenView(
        cut=Cut(1, 2),
        stage=1,
        features=torch.zeros(1, 4, 8),
        index=torch.tensor([[-1, 3, 7, 2]]),
        grid=Grid(1, 4, 4),
        shape=LLAVA,
        keys=("a",),
        evidence={next(iter(pruner.inside.needs(LLAVA))): torch.tensor([[0.9, 0.1, 0.2, 0.5]])},
    )
    assert pruner.apply(view).index.tolist() == [[0, 3]]

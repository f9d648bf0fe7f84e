"""What a GPU replays gives what it gives when it is run: on the pretended GPU, whose graphs run nothing of the host's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from pretended_gpu import GPU, pretended_gpu
from pruner_options import DECODERS, options_for
from rehearsal import on_pretended_gpu
from torch import Tensor

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY, tiny_llava
from vtpbench.harness.pruning import captured_passes as captured
from vtpbench.harness.pruning.captured_passes import CapturedPasses, Pass, cuda_graphs
from vtpbench.harness.pruning.pipeline import Pipeline, PipelineResult, Prompt
from vtpbench.pruners.base import Cut, ModelShape, Pruner, TokenView
from vtpbench.pruners.registry import build
from vtpbench.pruners.transfer import copy_to_device

CASES = [
    *(("llava", name) for name in ("vanilla", "fastv", "pyramiddrop", "sparsevlm", "dart")),
    *((family, name) for family in ("llava_next", *DECODERS[1:]) for name in ("vanilla", "pyramiddrop")),
]
SAME = ["What?", "Whom?", "Whim?"]
"""Equally long."""


def asked(model: Family, pruner: Pruner, *, budget: bool = True, **options: Any) -> Pipeline:
    model.model.generation_config.eos_token_id = None
    return Pipeline(model, pruner, (lambda n: n // 2) if budget else (lambda n: None), **options)


def prompts(tools: Any, questions: list[str], turn: int = 0) -> list[Prompt]:
    return [Prompt(f"{turn} {n}", text, [tools.picture(40, 30, 10 * turn + n)]) for n, text in enumerate(questions)]


def seen(result: PipelineResult) -> object:
    kept = {image: {at: left.tolist() for at, left in cuts.items()} for image, cuts in result.trace.kept.items()}
    return result.texts, kept, result.trace.per_layer, result.trace.finite


@pytest.mark.usefixtures("always_shared")
@pytest.mark.parametrize("behind", [False, True], ids=["whole", "behind the system prompt"])
@pytest.mark.parametrize(("family", "name"), CASES)
def test_what_is_replayed_answers_as_what_is_run(family: str, name: str, behind: bool, tools: Any) -> None:
    model = TINY[family]()
    own = asked(model, build(name, options_for(name, family)), budget=name != "vanilla", graphs=True, share_prefix=behind)
    turns = [prompts(tools, [text], turn) for turn, text in enumerate(SAME)]
    expected = [seen(replace(own, graphs=False).run(turn, 3)) for turn in turns]
    with on_pretended_gpu(model):
        assert [seen(own.run(turn, 3)) for turn in turns] == expected
        passes, steps = model.captured_passes, model.captured_steps
        prefill = "prefill" if name == "vanilla" else f"prefill with {type(own.pruner).__name__}"
        assert passes.replays.get(prefill) == 2  # the second time it is captured
        assert passes.replays.get("tower") == (2 if family.startswith("llava") else None)
        assert passes.refused.keys() == (set() if family.startswith("llava") else {"tower"})
        assert (steps.refused, steps.captured) == (None, 1)
        assert model.holds_memory
        model.forget_graphs()
        assert not model.holds_memory


@pytest.mark.usefixtures("always_shared")
def test_padded_prompts_and_prompts_behind_a_shared_prefix_are_replayed(tools: Any) -> None:
    model = tiny_llava()
    own = asked(model, build("fastv", {}), graphs=True)
    shared, inside = (asked(model, build(name, {}), graphs=True, share_prefix=True) for name in ("visionzip", "pyramiddrop"))
    padded = [prompts(tools, ["Is it there?", text], turn) for turn, text in enumerate(SAME)]
    behind = [[replace(own, images=first.images) for own in (first, second)] for first, second in padded]
    cases = [(own, turn) for turn in padded] + [(lane, turn) for lane in (shared, inside) for turn in behind]
    expected = [answered(replace(lane, graphs=False), turn) for lane, turn in cases]
    with on_pretended_gpu(model):
        assert [answered(lane, turn) for lane, turn in cases] == expected
        assert model.captured_passes.refused == {}
        assert {name: model.captured_passes.replays[name] for name in ("prefill with FastV", "prefill")} == {
            "prefill with FastV": 2,
            "prefill": 4,
        }


def answered(lane: Pipeline, turn: list[Prompt]) -> object:
    """Answer, prompts about one picture object with the same tokens of it."""
    pictures = list({id(prompt.images[0]): prompt.images[0] for prompt in turn}.values())
    left = lane.select(lane.encode(pictures), [str(n) for n in range(len(pictures))])
    own = [[left[next(n for n, picture in enumerate(pictures) if picture is prompt.images[0])]] for prompt in turn]
    texts, trace = lane.generate(lane.assemble([prompt.text for prompt in turn], own), 3)
    return texts, {image: {at: x.tolist() for at, x in cuts.items()} for image, cuts in trace.kept.items()}, trace.per_layer


@dataclass(frozen=True)
class Naming(Pruner):
    """Looks at the names of pictures inside the language model."""

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        return (Cut(2, budget),)

    def score(self, view: TokenView) -> Tensor:
        first = torch.tensor([float(len(key)) for key in view.keys])
        return view.features.sum(-1) * copy_to_device(first, view.features.device)[:, None]


@dataclass(frozen=True)
class Reading(Naming):
    """Reads a value."""

    def score(self, view: TokenView) -> Tensor:
        return view.features.sum(-1) * float(view.features[0, 0, 0])


@dataclass(frozen=True)
class Counting(Naming):
    """Asks how many names there are."""

    def score(self, view: TokenView) -> Tensor:
        return view.features.sum(-1) * len(view.keys)


NAMES = "asks for the names of the pictures"


@pytest.mark.parametrize(("pruner", "why"), [(Naming(), NAMES), (Counting(), NAMES), (Reading(), "a value is read")])
def test_what_a_graph_cannot_hold_is_run_and_the_reason_known(pruner: Pruner, why: str, tools: Any) -> None:
    model = tiny_llava()
    own = asked(model, pruner, graphs=True)
    turns = [prompts(tools, [text], turn) for turn, text in enumerate(SAME)]
    expected = [seen(replace(own, graphs=False).run(turn, 2)) for turn in turns]
    with on_pretended_gpu(model):
        assert [seen(own.run(turn, 2)) for turn in turns] == expected
        name = f"prefill with {type(pruner).__name__}"
        replayed, refused = model.graphs_of(type(pruner).__name__)
    assert why in refused[name]
    assert replayed == ["tower", "decoding steps"]


def test_who_watches_selections_sees_all_of_them(tools: Any) -> None:
    model, watched = tiny_llava(), list[int]()
    own = asked(model, build("fastv", {}), graphs=True, observer=lambda view, keep: watched.append(keep.k))
    with on_pretended_gpu(model):
        for turn, text in enumerate(SAME):
            own.run(prompts(tools, [text], turn), 1)
        assert model.captured_passes.refused == {"prefill with FastV": "every selection is to be shown to an observer"}
    assert len(watched) == len(SAME)


@dataclass(frozen=True)
class Sum:
    """An outcome."""

    total: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        return [self.total]


def passing(x: Tensor, work: Any) -> Pass[Sum]:
    return Pass("sum", "key", [x], lambda: Sum(work(x)), lambda inputs, place: Sum(work(inputs[0])))


@contextmanager
def captured_passes() -> Iterator[CapturedPasses]:
    with torch.inference_mode(), pretended_gpu():
        passes = CapturedPasses(cuda_graphs(GPU), GPU, torch.float32)
        with passes.applied():
            yield passes


def test_what_the_host_computes_is_kept_where_it_is() -> None:
    with captured_passes() as passes:
        found = []
        for turn in range(4):
            x = torch.arange(3, device=GPU) + turn
            done, replayed = passes.run(passing(x, lambda x: x + copy_to_device(torch.tensor([10, 20, 30]), GPU)))
            found.append((done.total.tolist(), replayed))
    assert found == [([10 + n, 21 + n, 32 + n], n > 0) for n in range(4)]


def test_what_changes_from_run_to_run_is_not_replayed() -> None:
    turns = iter(range(100))
    with captured_passes() as passes:
        for _ in range(3):
            x = torch.arange(3, device=GPU)
            assert not passes.run(passing(x, lambda x: x + copy_to_device(torch.tensor(next(turns)), GPU)))[1]
        assert passes.refused == {"sum": "what is brought to the device differs from run to run"}


def test_a_replay_that_differs_from_the_run_is_not_used() -> None:
    with captured_passes() as passes:
        calls = torch.zeros(1, device=GPU)
        for _ in range(3):  # what is written to outside differs the next time
            assert not passes.run(passing(torch.ones(1, device=GPU), lambda x: calls.add_(x).clone()))[1]
        assert passes.refused == {"sum": "a replay gave other numbers than the run that was captured (up to 2 apart)"}


def test_what_is_captured_is_compared_with_what_would_have_been_run() -> None:
    with captured_passes() as passes:
        for _ in range(3):
            x = torch.ones(1, device=GPU)
            other = replace(passing(x, lambda x: x + 1), launch=lambda x=x: Sum(x))
            done, replayed = passes.run(other)
            assert (done.total.tolist(), replayed) == ([1], False)
        assert passes.refused == {"sum": "a replay gave other numbers than the run that was captured (up to 1 apart)"}


def test_what_comes_when_no_more_is_captured_is_run_and_the_reason_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "KEPT", 1)
    with captured_passes() as passes:
        x = torch.ones(1, device=GPU)
        asked = [replace(passing(x, lambda x: x + 1), name=name, key=name) for name in ("first", "second")]
        assert [[passes.run(each)[1] for each in asked] for _ in range(3)] == [[False, False], [True, False], [True, False]]
        assert passes.refused == {"second": captured.CROWDED}


def test_too_little_memory_for_a_capture_says_nothing_of_the_pass() -> None:
    room = [False]

    def work(x: Tensor) -> Tensor:
        if torch.cuda.is_current_stream_capturing() and not room[0]:
            raise torch.OutOfMemoryError("no room")
        return x + 1

    with captured_passes() as passes:
        passes.run(passing(torch.ones(1, device=GPU), work))
        with pytest.raises(torch.OutOfMemoryError):
            passes.run(passing(torch.ones(1, device=GPU), work))
        room[0] = True
        assert passes.run(passing(torch.ones(1, device=GPU), work))[1]
        assert passes.refused == {}


def test_a_graph_that_reads_memory_which_was_given_back_is_found_out() -> None:
    with captured_passes() as passes:
        kept = [torch.ones(1, device=GPU)]

        def work(x: Tensor) -> Tensor:
            return x + kept[0]

        for _ in range(2):
            passes.run(passing(torch.ones(1, device=GPU), work))
        kept.clear()
        with pytest.raises(RuntimeError, match="given back since"):
            passes.run(passing(torch.ones(1, device=GPU), work))


def test_graphs_are_captured_again_where_all_are_gone() -> None:
    with torch.inference_mode(), pretended_gpu():
        x, capture = torch.zeros(1, device=GPU), cuda_graphs(GPU)
        for _ in range(2):  # each replay is forgotten before the next capture
            first, second = capture(lambda: x.add_(1)), capture(lambda: x.add_(1))
            first()
            second()
            del first, second
        assert x.tolist() == [8]  # with the runs that precede captures


def test_before_a_replay_nothing_is_there() -> None:
    with torch.inference_mode(), pretended_gpu():
        x, held, made = torch.ones(2, device=GPU), torch.zeros(2, device=GPU), list[Tensor]()
        replay = cuda_graphs(GPU)(lambda: made.append(held.add_(x) * 2))
        assert held.tolist() == [1, 1]  # by the run that precedes a capture
        assert made[-1].isnan().all()
        replay()
        assert (held.tolist(), made[-1].tolist()) == ([2, 2], [4, 4])

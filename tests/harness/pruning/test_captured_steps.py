"""Steps with fixed shapes and addresses answer as steps that grow, and do nothing that a CUDA graph cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pruner_options import DECODERS, options_for
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY, tiny_llava
from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.captured_passes import SharedMemory
from vtpbench.harness.pruning.captured_steps import COLUMNS, CapturedSteps
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.registry import build

QUESTIONS = ["What?", "Is there a thing in the picture, or is there none?", "Hm?"]
LONG = COLUMNS + 9
"""More tokens than buffers have room for when they are opened."""


def pipeline(model: Family, name: str, **options: Any) -> Pipeline:
    pruner = build(name, options_for(name, model.shape.family))
    return Pipeline(model, pruner, (lambda n: None) if name == "vanilla" else (lambda n: n // 2), **options)


def batch_of(lane: Pipeline, tools: Any, questions: list[str], pictures: int = 3) -> PromptBatch:
    left = lane.select(lane.encode([tools.picture(40, 30, n) for n in range(pictures)]), [str(n) for n in range(pictures)])
    return lane.assemble(questions, [[left[n % pictures]] for n in range(len(questions))])


CASES = [("vanilla", "sdpa", LONG), ("sparsevlm", "eager", 6), ("pyramiddrop", "sdpa", LONG), ("prumerge", "sdpa", 6)]


@pytest.mark.usefixtures("always_shared")
@pytest.mark.parametrize(("name", "attention", "new"), CASES)
@pytest.mark.parametrize("family", DECODERS)
def test_answers_are_those_of_steps_that_grow(family: str, name: str, attention: str, new: int, tools: Any) -> None:
    model = TINY[family](attention)
    model.model.generation_config.eos_token_id = None
    for questions, pictures in ((QUESTIONS, 3), (QUESTIONS[:1], 1), (QUESTIONS, 1)):  # the last behind a shared prefix
        lanes = [pipeline(model, name, share_prefix=True, graphs=static) for static in (False, True)]
        batch = batch_of(lanes[0], tools, questions, pictures)
        (texts, grown), (same, fixed) = (lane.generate(batch, new) for lane in lanes)
        assert same == texts
        assert (fixed.written, fixed.finite, fixed.per_layer) == (grown.written, grown.finite, grown.per_layer)


@pytest.mark.usefixtures("always_shared", "question_rows")
@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize("name", ["vanilla", "fastv"])
def test_the_pass_over_prompts_writes_where_steps_read(name: str, pictures: int, tools: Any) -> None:
    lane = pipeline(tiny_llava(), name, share_prefix=True, graphs=True)
    begun = lane.prefill(batch_of(lane, tools, QUESTIONS, pictures))
    written, copied = addresses(begun.start.cache), Copied()
    with copied:
        lane.decode(begun, 3)
    assert addresses(begun.start.cache) == written
    assert len(set(written)) == 2 * lane.model.shape.decoder_layers
    assert 0 < copied.largest < min(layer.keys.numel() for layer in begun.start.cache.layers)


def addresses(cache: Any) -> list[int]:
    return [each.data_ptr() for layer in cache.layers for each in (layer.keys, layer.values)]


class Copied(TorchDispatchMode):
    """Numbers of the largest tensor that was copied inside."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("copy_", "clone", "_to_copy"):
            self.largest = max(self.largest, args[0].numel())
        return func(*args, **(kwargs or {}))


def test_a_batch_whose_cache_another_has_overwritten_is_not_decoded(tools: Any) -> None:
    lane = pipeline(tiny_llava(), "random", graphs=True)
    first, second = (lane.prefill(batch_of(lane, tools, questions)) for questions in (QUESTIONS, QUESTIONS[::-1]))
    with pytest.raises(AssertionError, match="what an earlier one cached was written over"):
        lane.decode(first, 3)
    assert lane.decode(second, 3)[0] == lane.generate(batch_of(lane, tools, QUESTIONS[::-1]), 3)[0]


def test_buffers_that_an_answer_outgrows_are_given_back_layer_by_layer(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llava()
    model.model.generation_config.eos_token_id = None
    lane = pipeline(model, "vanilla", graphs=True)
    begun = lane.prefill(batch_of(lane, tools, QUESTIONS[:1]))
    first = [StorageWeakRef(layer.keys.untyped_storage()) for layer in begun.start.cache.layers]
    there, take = list[int](), SharedMemory.take

    def counting(self: SharedMemory, *sizes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        taken = take(self, *sizes)
        there.append(sum(not storage.expired() for storage in first))
        return taken

    monkeypatch.setattr(SharedMemory, "take", counting)
    lane.decode(begun, LONG)
    layers = model.shape.decoder_layers
    assert there == [layers] * layers + [*range(layers, 0, -1)], "opened where they are, then moved"


class Captures:
    """Stands for a device with graphs: what is captured is run again."""

    def __init__(self, spoil: Callable[[], None] = lambda: None) -> None:
        self.captured = self.replayed = 0
        self.spoil = spoil

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        run()
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            run()
            self.spoil()

        return replay


def capturing(capture: Any) -> Family:
    model = tiny_llava()
    model.model.generation_config.eos_token_id = None
    model.captured_steps = CapturedSteps(model, capture)
    return model


def test_a_shape_that_comes_again_is_captured_and_replayed_with_the_same_answers(tools: Any) -> None:
    captures = Captures()
    model = capturing(captures)
    lanes = [pipeline(model, name, graphs=True) for name in ("vanilla", "fastv")]
    batches = [batch_of(lane, tools, QUESTIONS) for lane in lanes]
    first = [lane.generate(batch, 6)[0] for lane, batch in zip(lanes, batches, strict=True)]
    assert (captures.captured, captures.replayed) == (0, 0)
    for _ in range(3):
        assert [lane.generate(batch, 6)[0] for lane, batch in zip(lanes, batches, strict=True)] == first
    assert captures.captured == model.captured_steps.captured == 2
    assert captures.replayed == 2 * (1 + 3 * 5)  # one to compare with the run, then five steps behind each first token
    assert model.captured_steps.refused is None


def test_a_replay_that_differs_from_the_run_is_not_used(tools: Any) -> None:
    model = capturing(None)
    steps = model.captured_steps = CapturedSteps(model, Captures(lambda: step().logits.add_(1)))
    step = lambda: next(iter(steps._known.values())).step  # noqa: E731 - of the only shape
    lane = pipeline(model, "random", graphs=True)
    batch = batch_of(lane, tools, QUESTIONS)
    answers = [lane.generate(batch, 6)[0] for _ in range(4)]
    assert answers == answers[:1] * 4
    assert (steps.captured, steps.refused) == (0, "a replay gave other logits than the run that was captured")


def test_a_device_that_cannot_capture_runs_the_same_steps(tools: Any) -> None:
    def fails(run: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    model = capturing(fails)
    lane = pipeline(model, "random", graphs=True)
    batch = batch_of(lane, tools, QUESTIONS)
    answers = [lane.generate(batch, 6)[0] for _ in range(3)]
    assert answers == answers[:1] * 3
    assert model.captured_steps.refused == "operation not permitted when stream is capturing"


def test_a_larger_batch_takes_new_memory_and_smaller_ones_go_on_in_it(tools: Any) -> None:
    model = capturing(Captures())
    lane = pipeline(model, "vanilla", graphs=True)
    small, large = batch_of(lane, tools, QUESTIONS[:1]), batch_of(lane, tools, QUESTIONS)
    first = lane.generate(small, 6)[0]
    whole = lane.generate(large, 6)[0]
    for _ in range(2):
        assert lane.generate(small, 6)[0] == first
        assert lane.generate(large, 6)[0] == whole
    assert model.captured_steps.captured == 2


def test_numbers_that_overflowed_in_an_earlier_batch_do_not_reach_a_later_one(tools: Any) -> None:
    model = capturing(Captures())
    with torch.no_grad():
        model.model.get_input_embeddings().weight[model.tokenizer.convert_tokens_to_ids("Z")] = torch.inf
    lane = pipeline(model, "vanilla", graphs=True)
    sound, broken = batch_of(lane, tools, ["What?", "Why?", "Who?"]), batch_of(lane, tools, ["ZZZZ?", "Z?", "Z Z Z?"])
    first, _ = lane.generate(sound, 6)
    for batch in (broken, sound, broken):
        texts, trace = lane.generate(batch, 6)
        assert trace.finite == [batch is sound] * 3
        assert texts == first or batch is broken

"""What only a GPU can show: that pruning is that of the CPU, waits for nothing, is timed and survives a lack of memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from pruner_options import QWEN, UNSUPPORTED, options_for

from vtpbench.harness.efficiency.batch_size import LARGEST
from vtpbench.harness.efficiency.options import pruner_rows
from vtpbench.harness.efficiency.profile import ProfileProtocol, profile
from vtpbench.harness.efficiency.stages import Prompts, PrunerAtBudget, run
from vtpbench.harness.efficiency.timers import DeviceTimer
from vtpbench.harness.host.device import open_device
from vtpbench.harness.models.dummy import describe_dummy, open_dummy
from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.questions import Question
from vtpbench.harness.suite.specs import PrunerSpec
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import build, entries
from vtpbench.pruners.transfer import STAGED_BYTES, copy_to_device
from vtpbench.report.efficiency.table import table_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU = torch.device("cuda:0")
BUDGETS = {"llava": 10, "llava_next": 40, "internvl": 10, **dict.fromkeys(QWEN, 18)}
NAMES = sorted(name for name, entry in entries().items() if entry.distribution == "vtpbench")
CASES = [(model, name) for model in BUDGETS for name in NAMES if (name, model) not in UNSUPPORTED]


@pytest.fixture(scope="module")
def moved() -> Callable[[str], Family]:
    """Tiny models on the GPU, each made once; not those of other tests, which stay where they are."""

    @cache
    def make(name: str) -> Family:
        family = TINY[name]()
        family.model.to(GPU)
        return family

    return make


def subject(family: Family, name: str, model: str) -> PrunerAtBudget:
    budget = BudgetInfo() if name == "vanilla" else BudgetInfo(tokens=BUDGETS[model])
    return PrunerAtBudget(family, build(name, options_for(name, model)), budget)


def busy() -> torch.Tensor:
    """Give the device some work, tens of milliseconds at least."""
    x = torch.ones(4096, 4096, device=GPU)
    for _ in range(30):
        x = x @ x / 4096
    return x


@contextmanager
def no_wait() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("model", "name"), CASES)
def test_what_stays_is_that_of_the_cpu_and_the_same_every_time(model: str, name: str, moved, tiny, tools) -> None:
    prompts = Prompts([tools.picture(48, 48, seed) for seed in range(2)], "Why?", 2)
    seen = []
    for family in (tiny(model), moved(model), moved(model)):
        with torch.backends.cudnn.flags(enabled=False):  # its convolutions round float32
            images, batch, trace = run(subject(family, name, model), prompts, lambda stage: None)
        kept = [{at: left.tolist() for at, left in image.kept(trace.kept[n]).items()} for n, image in enumerate(batch.images)]
        seen.append((kept, trace.per_layer, [len(image.index) for image in images], batch.embeds.cpu()))
    assert seen[0][:3] == seen[1][:3] == seen[2][:3]
    torch.testing.assert_close(seen[1][3], seen[0][3], atol=1e-3, rtol=1e-3)
    assert torch.equal(seen[1][3], seen[2][3])


@pytest.mark.parametrize(("model", "name"), CASES)
def test_no_pruner_waits_between_tower_and_decoder(model: str, name: str, moved, tools) -> None:
    asked = subject(moved(model), name, model)
    pipeline, questions = asked.pipeline, ["Why?"] * 2
    encoded = pipeline.encode([tools.picture(48, 48, seed) for seed in range(2)])

    def choose() -> None:
        chosen = pipeline.select(encoded, ["0", "1"], questions)
        pipeline.assemble(questions, [[chosen[0]], [chosen[1]]])

    choose()  # tables that are made once may be waited for
    with no_wait():
        choose()


@pytest.mark.parametrize("model", BUDGETS)
@pytest.mark.parametrize("name", ["vanilla", "random", "fastv", "pyramiddrop", "sparsevlm", "tome"])
def test_what_is_replayed_answers_as_what_is_launched(model: str, name: str, moved, tools) -> None:
    """Towers of fixed size, prefills with the cuts inside and decoding steps; pictures differ from turn to turn."""
    family = moved(model)
    own = subject(family, name, model).pipeline
    texts = ("Why?", "Is there a thing?", "Hm?")
    for questions in (texts, texts[:1]):  # padded, and without padding
        for turn in range(4):
            prompts = [Prompt(text, text, [tools.picture(48, 48, 10 * turn + n)]) for n, text in enumerate(questions)]
            launched, replayed = own.run(prompts, 40), replace(own, graphs=True).run(prompts, 40)
            assert (replayed.texts, replayed.trace.written) == (launched.texts, launched.trace.written)
            for image, cuts in launched.trace.kept.items():
                assert all(torch.equal(places, replayed.trace.kept[image][at]) for at, places in cuts.items())
    names, refused = family.graphs_of(type(own.pruner).__name__)
    cutting = any(cut.at for cut in replayed.batch.images[0].schedule.cuts)
    assert (f"prefill with {type(own.pruner).__name__}" if cutting else "prefill") in names
    assert refused.keys() <= (set() if model.startswith("llava") else {"tower"}), refused


def test_rows_are_profiled_as_graphs_in_the_same_turns(moved) -> None:
    rows = pruner_rows([(PrunerSpec(name=name, label=name), BudgetInfo(tokens=10)) for name in ("fastv", "sparsevlm")])
    protocol = ProfileProtocol("Why?", picture=(16, 16), new_tokens=4, warmup=2, repeats=5, graphs=True)
    found = profile(moved("llava"), describe_dummy("llava-1.5-7b").info, rows, protocol, "tiny", lambda *_: None)
    for launched, replayed in zip(*(record.rows for record in found), strict=True):
        assert replayed.not_replayed == {}
        assert len(replayed.replayed) == 3
        for stage in ("vision", "prefill", "decode"):
            assert replayed.work[stage].launches < launched.work[stage].launches / 4
            assert 0 < replayed.work[stage].device_ms < max(replayed.times_ms[stage])
        assert min(replayed.summed_ms()) < min(launched.summed_ms()), "so small a model waits for its host"


def test_a_copy_is_sent_while_the_device_works_and_arrives_whole() -> None:
    values = [torch.full((STAGED_BYTES,), n) for n in range(8)] + [torch.full((100,), n) for n in range(8)]
    for _ in range(2):  # the second time pinned memory is at hand
        work, start = busy(), time.perf_counter()
        with no_wait():
            sent = [copy_to_device(value.clone(), GPU) for value in values]
        handed_over = time.perf_counter() - start
        torch.cuda.synchronize()
        done = time.perf_counter() - start
        assert all(torch.equal(found.cpu(), value) for found, value in zip(sent, values, strict=True))
        del work
    assert handed_over < done / 2


def test_a_stage_has_the_time_that_the_device_took_and_the_host_kept_it_waiting() -> None:
    busy()  # loads what is needed
    timer = DeviceTimer(GPU)
    work = busy()
    timer.mark("device")
    timer.mark("nothing")
    torch.cuda.synchronize()
    time.sleep(0.05)
    timer.mark("host")
    device, nothing, host = timer.laps()
    assert (device.stage, nothing.stage, host.stage) == ("device", "nothing", "host")
    assert device.ms > 10 > 1 > nothing.ms >= 0
    assert 49 < host.ms < 49 + device.ms + 50
    del work


def test_a_device_is_opened_with_its_number_and_made_the_current_one() -> None:
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    try:
        assert open_device(str(last)) == last
        assert torch.cuda.current_device() == last.index
    finally:
        assert open_device(None) == GPU == open_device("cuda:0")
    with pytest.raises(UserError, match="no device 'cuda:99' here"):
        open_device("cuda:99")


def test_where_memory_lacks_the_batch_is_halved_and_nothing_of_it_is_kept(moved, tools) -> None:
    family, rows = moved("llava"), []
    questions = [Question(str(n), "Why?", lambda n=n: [tools.picture(30, 30, n)], 2) for n in range(6)]

    def answered() -> Answerer:
        answerer = Answerer(Pipeline(family, build("fastv", {}), lambda n: 10), 4)
        answers = [answer.sample for batch in answerer.answer(questions) for answer in batch]
        assert sorted(answers) == [question.sample for question in questions]
        return answerer

    assert answered().smallest == 4  # and what libraries take once, they have
    torch.cuda.empty_cache()
    before, room = torch.cuda.memory_allocated(GPU), int(0.4 * torch.cuda.mem_get_info(GPU)[0])

    def greedy(module: Any, args: Any, kwargs: Any) -> None:
        rows.append(len(args[0] if args else kwargs["hidden_states"]))
        torch.empty(rows[-1] * room, dtype=torch.uint8, device=GPU)

    hook = family.decoder.layers[4].register_forward_pre_hook(greedy, with_kwargs=True)
    try:
        assert answered().smallest == 2
    finally:
        hook.remove()
    assert max(rows) == 4
    assert torch.cuda.memory_allocated(GPU) - before < 1 << 20


def test_the_largest_batch_is_found_and_profiled(moved) -> None:
    rows = pruner_rows([(PrunerSpec(name="fastv", label="FastV"), BudgetInfo(tokens=10))])
    protocol = ProfileProtocol("Why?", (), largest=True, picture=(16, 16), new_tokens=2, warmup=1, repeats=2)
    before = torch.cuda.memory_stats(GPU)["num_alloc_retries"]
    (record,) = profile(moved("llava"), describe_dummy("llava-1.5-7b").info, rows, protocol, "tiny", lambda *_: None)
    assert torch.cuda.memory_stats(GPU)["num_alloc_retries"] == before
    assert record.load.batch == LARGEST  # of so small a model any GPU holds more
    assert record.machine.driver
    for row in record.rows:
        assert row.status == "ok"
        assert row.peak_bytes is not None
        assert row.peak_bytes > row.kv_bytes > 0
        assert all(0 < ms < 60_000 for ms in row.summed_ms())
        assert row.joules is None or row.joules > 0


def test_what_the_device_does_is_seen_stage_by_stage(moved) -> None:
    """No stage works longer than it lasts."""
    rows = pruner_rows([(PrunerSpec(name="fastv", label="FastV"), BudgetInfo(tokens=10))])
    protocol = ProfileProtocol("Why?", picture=(16, 16), new_tokens=2, warmup=2, repeats=5)
    (record,) = profile(moved("llava"), describe_dummy("llava-1.5-7b").info, rows, protocol, "tiny", lambda *_: None)
    assert record.ceilings is not None
    assert record.ceilings.tflops_per_s > 1
    assert record.ceilings.gb_per_s > 100
    for row in record.rows:
        for stage in ("vision", "prefill", "decode"):
            work = row.work[stage]
            assert work.launches > 20
            assert 0 < work.device_ms < max(row.times_ms[stage])
            assert work.moved_bytes > 0
    assert {row.bound.by for row in table_of(record).rows if row.bound is not None} == {"launch"}, (
        "so small a model waits for its host"
    )


def test_a_model_of_full_size_is_made_on_the_device_and_not_on_the_host() -> None:
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info(GPU)[0] < 16 << 30:
        pytest.skip("needs 16 GiB of free GPU memory")
    before, on_host = torch.cuda.memory_allocated(GPU), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    family = open_dummy(describe_dummy("llava-1.5-7b", dtype="bfloat16"), GPU)
    expected = sum(2 * weight.numel() for weight in family.model.parameters())
    assert expected == pytest.approx(torch.cuda.memory_allocated(GPU) - before, rel=0.01)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - on_host < 5 << 20  # KiB: the model has 13 GiB

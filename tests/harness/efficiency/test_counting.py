import json
import re
from pathlib import Path

import pytest
import torch
from pruner_options import ONEVISION, UNSUPPORTED, options_for
from typer.testing import CliRunner

from vtpbench.harness.cli.main import app
from vtpbench.harness.efficiency.pruner_flops import PromptCounter
from vtpbench.harness.efficiency.without_weights import NOWHERE, KnownIntegers
from vtpbench.harness.models.dummy import noise_picture
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.records.efficiency import load_efficiency
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.registry import BUILT_IN, build

IN_DECODER = ("vanilla", "fastv", "sparsevlm", "pyramiddrop", "dart", "text-only")
PICTURE, QUESTION = noise_picture(40, 40), "What is it?"


@pytest.mark.parametrize("family", TINY)
def test_shapes_alone_give_the_operations_that_are_counted_with_values(family: str) -> None:
    counted, shapes = PromptCounter(TINY[family](), PICTURE, QUESTION), TINY[family]()
    shapes.model.to(NOWHERE)
    with KnownIntegers():
        counter = PromptCounter(shapes, PICTURE, QUESTION)
    for name in BUILT_IN:
        if (name, family) in UNSUPPORTED:
            continue
        pruner, budget = build(name, options_for(name, family)), None if name == "vanilla" else counter.tokens // 2
        expected = counted.measure(pruner, budget)
        with KnownIntegers():
            if family == ONEVISION and name not in IN_DECODER:
                with pytest.raises(Unsupported, match="how many newlines follow"):
                    counter.measure(pruner, budget)
                continue
            found = counter.measure(pruner, budget)
        assert found.per_layer == expected.per_layer, name
        assert (found.evidence, found.choice, found.decoder) == (expected.evidence, expected.choice, expected.decoder), name


def test_integers_of_the_host_stay_known_and_follow_where_they_are_used() -> None:
    with torch.inference_mode(), KnownIntegers():
        sizes = torch.tensor([[1, 4, 6]]).to(NOWHERE)
        assert sizes.tolist() == [[1, 4, 6]]
        table = torch.empty(9, 2, device=NOWHERE)
        assert table[sizes[0]].is_meta
        assert table[sizes[0]].shape == (3, 2)
        assert torch.ones(2).to(NOWHERE).is_meta


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


SUITE = """
models:
  - {label: LLaVA, path: llava-hf/llava-1.5-7b-hf}
  - {label: demo, path: demo}
matrix:
  pruners:
    - {label: FastV, name: fastv}
    - {label: OC-VTP, name: oc-vtp}
    - {label: TRIM, name: trim}
    - {label: unpadded, name: oc-vtp, options: {pad: none}}
    - {label: theirs, name: "theirs.py:Asking"}
  budgets: [64]
  benchmarks: [pope]
"""
ASKING = """
from vtpbench.pruners.base import Pruner
from dataclasses import dataclass
@dataclass(frozen=True)
class Asking(Pruner):
    def score(self, view):
        assert float(view.features.sum()) < 1e9
        return view.features[..., 0]
"""


def test_published_models_and_folders_are_counted_without_their_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(SUITE)
    Path("theirs.py").write_text(ASKING)
    done = call("profile", "s.yaml", "--flops-only", "--out", "out")
    assert done.exit_code == 1, "a pruner failed"
    first, second = (load_efficiency(file) for file in sorted(Path("out").rglob("*.json"), reverse=True))
    assert (first.model.id, second.model.id) == ("llava-hf/llava-1.5-7b-hf", "demo")
    rows = {row.pruner.label: row for row in first.rows}
    assert (first.load.repeats, rows["FastV"].times_ms, rows["FastV"].work) == (0, {}, {})
    exact = rows["OC-VTP"].flops["exact"]
    assert exact.pruner == pytest.approx(6.65e9, rel=0.001), "measured on a CPU at full size: docs/efficiency.md"
    text_tower = 12 * (2 * 77 * (4 * 768**2 + 2 * 768 * 3072) + 4 * 77**2 * 768)
    assert rows["TRIM"].flops["exact"].pruner == pytest.approx(text_tower + 2 * 576 * 1024 * 768, rel=0.002)
    assert sum(rows["vanilla"].flops["table4"].prefill) == pytest.approx(6.314e12, rel=0.001)
    assert rows["unpadded"].reason == "how many tokens it keeps depends on the picture; profile it on a device"
    assert re.match(r"pruner 'theirs\.py:Asking' broke with RuntimeError: .*meta", rows["theirs"].reason or "")
    own = {row.pruner.label: row.flops["exact"].pruner for row in second.rows if row.status == "ok"}
    assert 10e6 < own["OC-VTP"] < 200e6, "its trained network, beside the model, is much smaller"
    table = call("report", "out")
    assert "nothing was run" in table.stdout
    assert json.loads(call("report", "out", "--format", "json").stdout)[0]["rows"][0]["ttft_ms_median"] is None


@pytest.mark.parametrize("option", [("--batch", "4"), ("--throughput",), ("--device", "cpu")])
def test_what_runs_nothing_takes_no_options_of_a_run(option: tuple[str, ...]) -> None:
    done = call("profile", "efficiency", "--flops-only", *option)
    assert (done.exit_code, "--flops-only runs nothing: leave out" in done.output) == (2, True)


def test_a_model_without_a_configuration_here_is_named(tmp_path: Path) -> None:
    done = call("profile", "--model", "some/where", "--pruner", "fastv", "--budget", "64", "--flops-only", "--out", tmp_path)
    assert done.exit_code == 2
    assert "no configuration of some/where here; give a folder, or one of llava-hf/llava-1.5-7b-hf" in " ".join(
        done.output.split()
    )


@pytest.mark.parametrize(("dtype", "remedy"), [("float32", "use a smaller model"), ("bfloat16", "use a smaller model")])
def test_a_model_that_the_host_has_no_room_for_is_refused_before_it_is_made(tmp_path: Path, dtype: str, remedy: str) -> None:
    shipped = Path(__file__).parents[3] / "harness/models/configs/llava-1.5-7b.json"
    config = json.loads(shipped.read_text())
    config["text_config"] |= {"vocab_size": 10**9}
    (tmp_path / "large.json").write_text(json.dumps(config))
    model = ("--model", f"dummy:{tmp_path / 'large.json'}", "--dtype", dtype)
    done = call("profile", *model, "--device", "cpu", "--pruner", "fastv", "--budget", "64", "--out", tmp_path)
    said = " ".join(done.output.split())
    assert done.exit_code == 2
    assert f"GiB in {dtype}, and cpu has" in said
    assert remedy in said
    assert "--flops-only, which needs no weights" in said


def test_what_is_counted_without_weights_was_counted_on_a_gpu(tmp_path: Path) -> None:
    """The record of an H200, with weights: every pruner's own operations within 2 %, all others equal."""
    published = Path(__file__).parents[3] / "results/published/efficiency"
    (gpu,) = (load_efficiency(file) for file in published.glob("*.json") if "H200" in file.read_text())
    suite = tmp_path / "some.yaml"
    pruners = "[random, {label: FastV, name: fastv}, {label: SparseVLM, name: sparsevlm}, {label: ToMe, name: tome}]"
    models = 'models: [{label: LLaVA-1.5-7B, path: "dummy:llava-1.5-7b"}]'
    suite.write_text(f"dtype: bfloat16\n{models}\nmatrix: {{pruners: {pruners}, budgets: [64]}}\n")
    assert call("profile", suite, "--flops-only", "--new-tokens", "8", "--out", tmp_path).exit_code == 0
    (file,) = tmp_path.rglob("*.json")
    measured = {row.pruner.label: row for row in gpu.rows}
    for here in load_efficiency(file).rows:
        there = measured[here.pruner.label]
        assert (there.pruner.label, there.observed, there.kv_bytes) == (here.pruner.label, here.observed, here.kv_bytes)
        counted, found = there.flops["exact"], here.flops["exact"]
        assert found.pruner == pytest.approx(counted.pruner, rel=0.02), here.pruner.label
        assert found.model_copy(update={"pruner": 0}) == counted.model_copy(update={"pruner": 0})

"""Every row of the suites that come along: of Table 1 on the embedded model, of the efficiency table on a thin dummy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from runpy import run_path

import pytest
from rich.console import Console

from vtpbench.harness.efficiency.options import ProfileOptions, profile_models
from vtpbench.harness.efficiency.profile import ProfileProtocol
from vtpbench.harness.gather.sources import gather
from vtpbench.harness.records.efficiency import load_efficiency
from vtpbench.harness.run.job import RunOptions, execute, make_job
from vtpbench.harness.run.progress import make_progress
from vtpbench.harness.suite.suite import find_file, load
from vtpbench.report.analyses.columns import by_category, hard, part_tables
from vtpbench.report.stats.build import build
from vtpbench.report.tables.settings import require_comparable

FIXTURES = ("pope", "vqav2")
BUDGET = 72
"""Of 144 tokens: within the reach of methods that leave two of the embedded model's eight layers whole."""


def test_all_rows_of_table_1_run_on_the_embedded_model(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = request.config.rootpath
    write = run_path(str(root / "tests/harness/official/official_data.py"))["write"]
    places = {
        "models": [{"label": "demo", "path": str(root / "suites/demo/model"), "dtype": "float32"}],
        "matrix.budgets": [BUDGET],
        "matrix.seeds": [0],
        "matrix.benchmarks": [{label: {"overrides": write(label, tmp_path)}} for label in FIXTURES],
    }
    settings = [f"{key}={json.dumps(value)}" for key, value in places.items()]
    out = tmp_path / "results"
    job = make_job("llava15", RunOptions(out, (), settings), lambda line: None)
    with (tmp_path / "log").open("w") as log:
        summary = execute(job, "cpu", make_progress(Console(file=log)))
    assert summary.exit_code == 0, (tmp_path / "log").read_text()

    rows = ["vanilla", *(pruner.label for pruner in load("llava15").matrix[0].pruners)]
    found = gather([str(out)], tmp_path, lambda line: None)
    require_comparable(found.records)
    assert {(record.pruner.label, record.status) for record in found.records} == {(label, "ok") for label in rows}
    (table,) = build(found.records, FIXTURES, rows, found.samples)
    assert [row.label for block in table.blocks for row in block.rows] == rows
    observed = {row.label: row.observed for row in table.blocks[1].rows}
    shorter = {"downsample", "OC-VTP (unpadded)"}  # these may give fewer tokens than asked
    assert all(count == pytest.approx(BUDGET, abs=1) for label, count in observed.items() if label not in shorter)
    assert all(observed[label] <= BUDGET for label in shorter)

    tables = part_tables(by_category(found.records, found.samples), found.benchmarks, found.pruners)
    assert tables[0].columns == ("adversarial", "popular", "random"), "POPE's strata"
    for part in hard(found.records, found.samples):
        assert all("downsample" not in record.pruner.name for record in part.records)


def test_all_rows_of_the_efficiency_suite_are_profiled(tmp_path: Path, one_thread: None) -> None:
    """On a model as long as LLaVA-1.5-7B and as many tokens, but narrow."""
    import vtpbench.harness.models.configs

    config = json.loads(Path(str(vtpbench.harness.models.configs.__file__)).with_name("llava-1.5-7b.json").read_text())
    config["vision_config"] |= {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "projection_dim": 32}
    pruning_state = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    config["text_config"] |= pruning_state
    (tmp_path / "config.json").write_text(json.dumps(config))
    text = find_file("efficiency").read_text()
    (tmp_path / "efficiency.yaml").write_text(
        text.replace("dummy:llava-1.5-7b", f"dummy:{tmp_path / 'config.json'}").replace("[192, 128, 64]", "[64]")
    )
    protocol = ProfileProtocol("", picture=(336, 336), new_tokens=1, warmup=0, repeats=1)
    order = ProfileOptions(str(tmp_path / "efficiency.yaml"), dtype="float32", device="cpu", out=tmp_path, protocol=protocol)
    (file,) = profile_models(order, lambda *_: None)
    record = load_efficiency(file)
    assert [row.pruner.label for row in record.rows] == ["vanilla", *(p.label for p in load("efficiency").matrix[0].pruners)]
    assert {row.pruner.label: row.status for row in record.rows if row.status != "ok"} == {}
    entered = {row.pruner.label: row.observed.tokens for row in record.rows if row.observed is not None}
    assert entered["vanilla"] == 576
    assert all(count <= 65 for label, count in entered.items() if label != "vanilla")
    assert entered["OC-VTP"] == 64


@pytest.mark.parametrize(
    ("name", "budget", "vision", "prefill"), [("efficiency_next", "320", 2880, 33.759e12), ("efficiency_qwen", "33.3%", 64, None)]
)
def test_all_rows_of_the_other_efficiency_suites_are_counted(
    tmp_path: Path, name: str, budget: str, vision: int, prefill: float | None
) -> None:
    """At full size, without weights; Qwen2.5-VL on a small picture."""
    protocol = ProfileProtocol("", picture=(224, 224))
    (file,) = profile_models(
        ProfileOptions(name, budgets=[budget], out=tmp_path, flops_only=True, protocol=protocol), lambda *_: None
    )
    record = load_efficiency(file)
    assert {row.pruner.label: row.reason for row in record.rows if row.status != "ok"} == {}
    first = record.rows[0]
    assert first.observed is not None
    assert first.observed.tokens == vision
    if prefill is not None:
        assert sum(first.flops["table4"].prefill) == pytest.approx(prefill, rel=1e-4), "Table 4 of the OC-VTP paper"


def swapped(name: str, folder: Path) -> Path:
    """Put what a suite's comments offer in the places of what it has."""
    text = find_file(name).read_text()
    offered = {key: re.search(rf"^#.*?({key}: .*?)(?:  .*)?$", text, re.MULTILINE) for key in ("models", "benchmarks", "profile")}
    lines = {key: found[1] for key, found in offered.items() if found is not None}
    assert set(lines) == {"models", "benchmarks", "profile"}
    body = re.sub(r"^models:\n(?:  .*\n)+", lambda _: lines["models"] + "\n", text, flags=re.MULTILINE)
    body = re.sub(r"^  benchmarks: .*$", lambda _: "  " + lines["benchmarks"], body, flags=re.MULTILINE)
    (folder / f"{name}.yaml").write_text(f"{body}{lines['profile']}\n")
    return folder / f"{name}.yaml"


@pytest.mark.parametrize("name", ["ablation_layer", "ablation_loss", "ablation_topk"])
def test_what_the_ablation_suites_offer_for_a_real_model_is_a_valid_suite(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(request.config.rootpath / "suites")  # for the checkpoints, which a user replaces too
    suite, embedded = load(swapped(name, tmp_path)), load(name)
    (model,) = suite.models
    assert (model.path, model.preprocessing, model.prompt) == ("llava-hf/llava-1.5-7b-hf", "pad", "vicuna_v1")
    assert [p.label for p in suite.matrix[0].pruners] == [p.label for p in embedded.matrix[0].pruners]
    assert list(suite.benchmarks) == ["gqa", "mmbench", "mme", "pope", "textvqa", "mmmu", "seed"]  # those of Tables 5 to 7
    assert suite.profile == "paper"
    assert suite.benchmarks["seed"].metric == "seed_image"

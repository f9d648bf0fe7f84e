from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import datasets.config
import huggingface_hub.constants
import pytest
from typer.testing import CliRunner

from vtpbench.harness.cli.main import app
from vtpbench.harness.host import hub
from vtpbench.harness.planning.outlook import show_plan
from vtpbench.harness.planning.questions import QuestionCount, count_questions
from vtpbench.harness.run.job import RunOptions
from vtpbench.harness.suite.benchmarks import registry
from vtpbench.harness.suite.suite import packaged_suites
from vtpbench.pruners.errors import UserError
from vtpbench.report.stats.smallest import smallest_difference

SMALL = "matrix={pruners: [random, {label: FastV, name: fastv}, oc-vtp], budgets: [64, 32], benchmarks: [gqa, pope]}"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give empty caches, and a network that nobody may ask."""

    def asked(endpoint: str) -> bool:
        raise AssertionError(f"asked {endpoint}")

    monkeypatch.setattr(hub, "_reachable", asked)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "models"))


def plan(name: str, tmp_path: Path, *settings: str, gpu: str | None = None, width: int | None = None) -> str:
    return show_plan(name, RunOptions(tmp_path / "out", settings=settings), print, gpu, width)


@pytest.mark.parametrize("name", packaged_suites())
def test_every_packaged_suite_is_planned_without_models_data_or_network(name: str, tmp_path: Path) -> None:
    shown = plan(name, tmp_path)
    assert re.search(r"\d+ (cells: 0 done, \d+ missing|rows and no benchmarks)", shown.splitlines()[-1])
    assert not (tmp_path / "out").exists()


def test_what_is_not_here_is_named_with_its_size(tmp_path: Path) -> None:
    shown = plan("llava15", tmp_path, SMALL)
    assert "model LLaVA-1.5-7B: llava-hf/llava-1.5-7b-hf, about 14.1 GB in float16" in shown
    assert "data of pope: lmms-lab-encoder/POPE" in shown
    assert re.search(r"gqa +12,578 +0.8 +not here; the number is the published one", shown)
    assert "FastV @ 32: infeasible: FastV with layer=2 keeps all 576 tokens in 2 of 32 layers" in shown
    assert "FastV @ 64: 576 in layers 0-1, 30 in layers 2-31; average 64.1" in shown
    assert shown.endswith("14 cells: 0 done, 12 missing, 2 impossible; time unknown, nothing like it has been measured yet")


def test_a_limit_counts(tmp_path: Path) -> None:
    assert re.search(r"gqa +50 +too few +not here", plan("llava15", tmp_path, SMALL, "limit=50"))


def test_nothing_is_missing_of_the_embedded_suite(tmp_path: Path) -> None:
    shown = plan("demo", tmp_path)
    assert "not here" not in shown
    assert re.search(r"demo-read +80 +9.9 +here", shown)


def test_the_smallest_difference_is_that_of_the_questions_that_are_asked(tmp_path: Path) -> None:
    shown = plan("demo", tmp_path)
    each, mean = smallest_difference([80]), smallest_difference([80] * 4)
    assert re.findall(r"demo-\w+ +80 +(\S+)", shown) == [f"{each:.1f}"] * 4
    assert "in 80 % of cases if one has right and the other wrong 10 % of the questions (assumed)" in shown
    assert f"of the mean of all benchmarks {mean:.1f}" in shown
    fewer = plan("demo", tmp_path, "matrix={pruners: [random], budgets: [32], benchmarks: [demo-read]}", "limit=40")
    assert "of the mean" not in fewer


def test_a_suite_for_speed_shows_its_rows(tmp_path: Path) -> None:
    shown = plan("efficiency", tmp_path)
    assert re.search(r"LLaVA-1.5-7B +OC-VTP +64 +64 +to be measured", shown)
    assert "LLaVA-1.5-7B / ToMe @ 64: 64 in layers 0-31" in shown
    assert shown.endswith("40 rows and no benchmarks: what they save and cost is measured by `vtpbench profile efficiency`")


@pytest.mark.parametrize("name", ["llava15", "qwen3vl", "efficiency", "demo"])
def test_lines_fit_a_narrow_terminal_and_no_word_is_broken(name: str, tmp_path: Path) -> None:
    narrow, wide = plan(name, tmp_path, width=80), plan(name, tmp_path)
    assert max(map(len, narrow.splitlines())) <= 80
    assert set(narrow.split()) - set(wide.split()) <= {"4", "10", "benchmarks"}, "words of the column that counts"


def test_a_run_still_refuses_what_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    done = CliRunner().invoke(app, ["run", "llava15", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "which is not in" in done.stderr


def test_a_model_that_nobody_knows_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="model 'm': no configuration of org/m here; give a folder, or one of llava-hf/"):
        plan("llava15", tmp_path, "models=[{label: m, path: org/m}]")


def hours(shown: str) -> float:
    (found,) = re.findall(r"on one [^:]*: about ([\d.]+) h", shown)
    return float(found)


def test_the_cost_on_a_gpu(tmp_path: Path) -> None:
    shown = plan("llava15", tmp_path, gpu="h200")
    assert 9 < hours(shown) < 25, "425 the stock way, 40 by rates measured on an H200 before sweeps and graphs"
    launched = plan("llava15", tmp_path, "graphs=false", "batch_size=16", gpu="h200")
    assert 25 < hours(launched) < 60
    assert ("as CUDA graphs; not counted" in shown, "graphs" in launched) == (True, False)
    assert "assumed: batches of 128, 60 text tokens, answers of 4 tokens; decoding steps" in shown
    assert "scaled" not in shown


def test_a_picture_is_supposed_to_be_as_large_as_the_family_says(tmp_path: Path) -> None:
    few = ("matrix.pruners=[random]", "matrix.budgets=[25%]", "matrix.benchmarks=[scienceqa]")
    shown = plan("internvl3", tmp_path, *few, gpu="h200")
    assert "pictures of 3328 tokens" in shown
    assert hours(shown) > 3 * hours(plan("internvl3", tmp_path, *few, "models.0.preprocessing=single448", gpu="h200"))


def test_the_cost_follows_the_gpu_the_questions_and_the_batch(tmp_path: Path) -> None:
    found = {gpu: plan("llava15", tmp_path, SMALL, gpu=gpu) for gpu in ("h200", "l4")}
    assert "scaled by the data sheets' peak and bandwidth: no NVIDIA L4 was measured" in found["l4"]
    assert hours(found["l4"]) > hours(found["h200"]) > 50 * hours(plan("llava15", tmp_path, SMALL, "limit=100", gpu="h200"))
    assert hours(found["h200"]) < hours(plan("llava15", tmp_path, SMALL, "batch_size=16", gpu="h200"))


def test_a_picture_that_is_made_smaller_costs_the_tokens_that_it_has_then(tmp_path: Path) -> None:
    def cost(row: str) -> float:
        matrix = f"matrix={{pruners: [{row}], budgets: [64], benchmarks: [gqa, pope]}}"
        return hours(plan("llava15", tmp_path, matrix, gpu="h200"))

    assert cost("downsample") == pytest.approx(cost("pool"), rel=0.1)


def test_a_row_that_is_impossible_costs_nothing(tmp_path: Path) -> None:
    alone, beside = (
        SMALL.replace("[random, {label: FastV, name: fastv}, oc-vtp]", rows) for rows in ("[random]", "[random, fastv]")
    )
    alone, beside = (text.replace("[64, 32]", "[32]") for text in (alone, beside))
    assert hours(plan("llava15", tmp_path, alone, gpu="a100")) == hours(plan("llava15", tmp_path, beside, gpu="a100"))


def test_too_little_memory_and_32_bits_are_said(tmp_path: Path) -> None:
    assert "which is too much: give a smaller --batch-size" in plan("llava15", tmp_path, "batch_size=256", SMALL, gpu="l4")
    assert hours(plan("onevision", tmp_path, gpu="h200")) > 1  # of an image of 1000 tokens SparseVLM leaves no 11.1 %
    shown = plan("demo", tmp_path, gpu="h200")
    assert "no estimate for demo: it is run in float32" in shown
    with pytest.raises(UserError, match="--gpu tpu"):
        plan("demo", tmp_path, gpu="tpu")


def test_questions_are_counted_where_the_data_are(tmp_path: Path) -> None:
    gqa, demo = registry()["gqa"], registry()["demo-exist"]
    assert count_questions(gqa, None) == QuestionCount(12578, 398, here=False)
    assert count_questions(gqa, 1000) == QuestionCount(1000, 32, here=False)
    counted = count_questions(demo, None)
    assert counted.here
    assert counted.questions == counted.pictures
    assert count_questions(demo, 10).questions == 10
    copies = {"testdev_balanced_instructions": 77, "testdev_balanced_images": 5}
    for config, rows in copies.items():
        copy = tmp_path / "datasets" / "lmms-lab-encoder___gqa" / config / "0.0.0" / "abc"
        copy.mkdir(parents=True)
        (copy / "dataset_info.json").write_text(json.dumps({"splits": {"testdev": {"num_examples": rows}}}))
    assert count_questions(gqa, None) == QuestionCount(77, 3, here=True)


LIGHT = ("plan llava15 --gpu h200", "plan efficiency", "plan demo", "list pruners", "list models", "list suites", "data llava15")


def test_planning_and_listing_import_neither_torch_nor_lmms_eval(tmp_path: Path) -> None:
    code = f"""
import sys
from vtpbench.harness.cli.main import app
for command in {LIGHT!r}:
    try:
        app(command.split())
    except SystemExit as e:
        assert not e.code, command
    heavy = [m for m in ("torch", "lmms_eval", "transformers", "datasets", "pandas") if m in sys.modules]
    assert not heavy, (command, heavy)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr

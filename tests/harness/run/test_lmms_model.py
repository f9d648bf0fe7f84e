"""vtpbench in lmms-eval's own hands: its command, and what stands in its model arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vtpbench.harness.run.lmms_model import Plugin
from vtpbench.harness.suite.suite import load
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.fastv import FastV
from vtpbench.pruners.in_sequence import Sequence
from vtpbench.pruners.oc_vtp import OCVTP
from vtpbench.pruners.random import Random

SEQUENCE = "pruner={sequence: [pool, {dart: {layer: 1}}]}"


def test_lmms_eval_finds_the_model_by_its_own_command(tiny_checkpoint: Path, tmp_path: Path) -> None:
    benchmark = load("demo").benchmarks["demo-exist"]
    folder = benchmark.file.parent
    arguments = ["--model", "vtpbench", "--model_args", f"pretrained={tiny_checkpoint},{SEQUENCE},budget=6"]
    arguments += ["--tasks", benchmark.task, "--include_path", str(folder), "--limit", "4", "--output_path", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "lmms_eval", *arguments], cwd=folder, check=True, capture_output=True, timeout=300)
    found = json.loads(next(tmp_path.rglob("*results.json")).read_text())
    assert "vtp_f1,none" in found["results"][benchmark.task]


@pytest.fixture(scope="module")
def plugin(tiny_checkpoint) -> Plugin:
    plugin = Plugin(str(tiny_checkpoint))
    plugin.task_dict = {"mine": {"test": {0: None}}}
    return plugin


def asked(**generation) -> SimpleNamespace:
    """One request as lmms-eval makes it, without a picture."""
    return SimpleNamespace(args=("Why?", {"max_new_tokens": 4, **generation}, lambda doc: [], 0, "mine", "test"))


def test_an_answer_goes_on_behind_a_stop_text_as_in_its_own_adapter(plugin) -> None:
    (whole,) = plugin.generate_until([asked(until=None)])
    assert whole
    assert plugin.generate_until([asked(until=whole[0])]) == [whole]


@pytest.mark.parametrize("given", ["auto", "auto:4", "0", "-1", 2.5])
def test_a_batch_size_that_is_no_number_says_so_before_a_model_is_loaded(given, monkeypatch) -> None:
    monkeypatch.setattr("vtpbench.harness.run.lmms_model.open_model", lambda *a: pytest.fail("loaded"))
    with pytest.raises(UserError, match="give a number of questions, such as --batch_size 8"):
        Plugin("demo", batch_size=given)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("pruner=random,budget=6,seed=3", Random(seed=3)),
        ("pruner=fastv,layer=1,budget=50%", FastV(layer=1)),
        ("pruner={fastv: {layer: 1}},budget=6,attention=eager", FastV(layer=1)),
        (f"{SEQUENCE},budget=6", Sequence(first="pool", second="dart", second_options={"layer": 1})),
        (
            "pruner=sequence,first=pool,second=dart,second_options={layer: 1},budget=6",
            Sequence("pool", 0.75, "dart", {}, {"layer": 1}),
        ),
        ("pruner={oc-vtp: {checkpoint: dummy, attention: cls}},budget=6", OCVTP(checkpoint="dummy", attention="cls")),
    ],
)
def test_a_pruner_is_written_plainly_or_as_in_a_suite(arguments, expected, tiny_checkpoint) -> None:
    made = Plugin.create_from_arg_string(f"pretrained={tiny_checkpoint},{arguments}", {"batch_size": 1, "device": "cpu"})
    assert made.answerer.pipeline.pruner == expected
    config = made.answerer.pipeline.model.model.config.text_config
    assert config._attn_implementation == ("eager" if "eager" in arguments else "sdpa")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("pruner=oc-vtp,attention=cls,budget=6", r"^attention is an argument of the model and .* pruner=\{oc-vtp: \{attention: "),
        ("pruner={fastv: {layer: 1}},rows=all,budget=6", r"^rows: no argument of the model; .* inside its braces$"),
        ("pruner=fastv,attention=cls,budget=6", "^attention=cls: Input should be 'sdpa', 'eager' or 'flash_attention_2'"),
        ("pruner=fastv,dtype=float8,budget=6", "^dtype=float8: Input should be"),
        ("pruner=trim,text_tower=/nowhere,budget=6", "^text_tower=/nowhere: no folder /nowhere of a CLIP model"),
        ("pruner={sequence: [pool]},budget=6", "a sequence has two pruners"),
        ("pruner=fastv,layr=1,budget=6", "no option 'layr'; did you mean 'layer'"),
        ("pruner=fastv", "needs a budget: budget=64 or budget=11.1%"),
        ("pruner=fastv,budget=many", "budget many: a budget is a count"),
    ],
)
def test_mistakes_are_a_line(arguments, message, monkeypatch) -> None:
    monkeypatch.setattr("vtpbench.harness.run.lmms_model.open_model", lambda *a: pytest.fail("loaded"))
    with pytest.raises(UserError, match=message):
        Plugin.create_from_arg_string(f"pretrained=demo,{arguments}")


def test_sampling_is_refused(plugin) -> None:
    with pytest.raises(UserError, match="task 'mine' asks for sampling; vtpbench decodes greedily"):
        plugin.generate_until([asked(temperature=0.7)])


def test_a_launcher_is_refused(tiny_checkpoint, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="unset WORLD_SIZE"):
        Plugin(str(tiny_checkpoint))

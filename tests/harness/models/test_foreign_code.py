"""A checkpoint may bring code along that transformers offers to run: nothing of it is run, whatever standard input says."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from vtpbench.harness.models.load import describe_model, open_model
from vtpbench.pruners.errors import UserError

ROOT = Path(__file__).parents[3]
CLASSES = ("Config", "Model", "Processor", "ImageProcessor", "Tokenizer")
KEYS = {
    "config.json": {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model", "AutoModel": "evil.Model"},
    "processor_config.json": {"AutoProcessor": "evil.Processor", "AutoImageProcessor": "evil.ImageProcessor"},
    "preprocessor_config.json": {"AutoProcessor": "evil.Processor", "AutoImageProcessor": "evil.ImageProcessor"},
    "tokenizer_config.json": {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"], "AutoProcessor": "evil.Processor"},
}
NAMES = {
    "config.json": {},
    "processor_config.json": {"processor_class": "EvilProcessor", "image_processor_type": "EvilImages"},
    "preprocessor_config.json": {"processor_class": "EvilProcessor", "image_processor_type": "EvilImages"},
    "tokenizer_config.json": {"tokenizer_class": "EvilTokenizer", "processor_class": "EvilProcessor"},
}
"""Classes that transformers does not know: without their code it has nothing else to load."""


def poison(folder: Path, mark: Path, renamed: bool, model_type: str | None) -> None:
    """Put code into a checkpoint folder that would write a file, and name it everywhere."""
    code = "".join(f"class {name}: pass\n" for name in CLASSES)
    for name in ("evil.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"open({str(mark)!r}, 'w').close()\n{code}\ndef generate(*a, **k): pass\n")
    for name, keys in KEYS.items():
        file = folder / name
        body = json.loads(file.read_text()) if file.exists() else {}
        body |= {"auto_map": keys} | (NAMES[name] if renamed else {})
        if name == "config.json" and model_type:
            body["model_type"] = model_type
        file.write_text(json.dumps(body))


@pytest.mark.parametrize("model_type", [None, "evil"])
@pytest.mark.parametrize("renamed", [False, True])
def test_no_code_of_a_checkpoint_is_run(
    renamed: bool, model_type: str | None, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(tiny_checkpoint, folder)
    poison(folder, mark, renamed, model_type)
    answers = io.StringIO("y\n" * 50)
    monkeypatch.setattr(sys, "stdin", answers)
    with suppress(UserError, ValueError, OSError):
        open_model(describe_model("m", str(folder)), torch.device("cpu"))
    assert not mark.exists()
    assert answers.tell() == 0, "nobody was asked"


def test_everything_of_transformers_is_loaded_by_the_one_function_that_says_so() -> None:
    loading = re.compile(r"\.from_pretrained\(|\.load_dataset\((?!\{)")
    places = {
        (file.name, line.strip())
        for room in ("harness", "pruners", "report", "suites", "benchmarks")
        for file in (ROOT / room).rglob("*.py")
        for line in file.read_text().splitlines()
        if loading.search(line)
    }
    assert {name for name, _ in places} == {"pretrained.py", "hub.py"}
    assert all("trust_remote_code=False" in line for _, line in places)

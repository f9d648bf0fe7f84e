"""CLIP's text tower beside the vision tower: what it gives, where it is looked for, and that its files count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image as Pillow

from vtpbench.harness.models.load import describe_model, find_text_tower, open_model
from vtpbench.harness.models.text_tower import BATCH, ClipTextTower
from vtpbench.harness.models.tiny import clip_tokenizer, tiny_clip, tiny_llava
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.pruners.cdpruner import CDPruner
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.fastervlm import FasterVLM

CPU = torch.device("cpu")
TEXTS = ["What is it?", "Where is the dog?\nAnswer with a word.", "What is it?", "x" * 300]


def saved(folder: Path, seed: int = 0) -> Path:
    tiny_clip(seed=seed).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder


def test_texts_and_tokens_as_transformers_embeds_them(tmp_path: Path) -> None:
    tower, clip = ClipTextTower.load(saved(tmp_path), 32, CPU), tiny_clip()
    found = tower.embed(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        ids = clip_tokenizer()([" ".join(text.split())], truncation=True, max_length=77, return_tensors="pt")["input_ids"]
        expected = clip.get_text_features(input_ids=ids).pooler_output[0]
        assert torch.allclose(row, expected, atol=1e-5)
    assert not torch.allclose(found[0], found[1])
    features = torch.randn(1, 4, 32)
    expected = clip.visual_projection(clip.vision_model.post_layernorm(features))
    assert torch.allclose(tower.project(features), expected)


def test_equal_texts_run_once_and_many_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    tower, asked = ClipTextTower(tiny_clip(), clip_tokenizer(), CPU), []
    run = tower._embed
    monkeypatch.setattr(tower, "_embed", lambda texts: asked.append(len(texts)) or run(texts))
    together = tower.embed([f"question {n % 70}" for n in range(100)])
    assert asked == [BATCH, 70 - BATCH]
    assert torch.allclose(together[71], tower.embed(["<image>\nquestion 1"])[0], atol=1e-5)


def test_the_question_decides() -> None:
    pixels = torch.randint(0, 256, (48, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image, pipeline = Pillow.fromarray(pixels.numpy()), Pipeline(tiny_llava(side=8), CDPruner(), lambda n: n // 4)
    prompts = [Prompt(text, text, (image,)) for text in ("What?", "A cat on a mat, or a dog in a fog?")]
    one, other = (row[0].index.tolist() for row in pipeline.run(prompts, 1).images)
    assert one != other


def test_it_is_found_by_its_files_and_their_hash(tmp_path: Path) -> None:
    one, other = (find_text_tower(str(saved(tmp_path / str(seed), seed)), "model") for seed in (0, 1))
    assert one.weights
    assert other.weights not in ("", None, one.weights)
    assert one.folder == str(tmp_path / "0")
    (tmp_path / "empty").mkdir()
    assert find_text_tower(str(tmp_path / "empty"), "model").weights is None


def test_one_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="belongs to a vision tower 32 wide, this one is 64"):
        ClipTextTower.load(saved(tmp_path), 64, CPU)


def test_without_questions_there_is_nothing_to_go_by() -> None:
    pipeline = Pipeline(tiny_llava(), CDPruner(), lambda n: n // 2)
    encoded = pipeline.encode([Pillow.new("RGB", (32, 32))])
    with pytest.raises(UserError, match="goes by the question"):
        pipeline.select(encoded, ["a"])


def test_it_counts_for_the_cells_that_read_it_and_comes_with_the_model(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folders = [str(saved(tmp_path / str(seed), seed)) for seed in (0, 1)]
    one, other = (describe_model("m", str(tiny_checkpoint), text_tower=folder) for folder in folders)
    assert one.info == other.info  # what does not read it is the same cell with either
    assert FasterVLM().fingerprint(one.shape) == FasterVLM().fingerprint(other.shape) == ""
    assert CDPruner().fingerprint(one.shape) != CDPruner().fingerprint(other.shape)
    with pytest.raises(Unsupported, match="give it a `text_tower`"):
        CDPruner().needs(describe_model("m", str(tiny_checkpoint)).shape)
    family = open_model(other, CPU)
    assert CDPruner().needs(family.shape)
    assert family.text_tower is family.text_tower
    assert torch.equal(family.text_tower.embed(["Why?"]), ClipTextTower.load(Path(folders[1]), 32, CPU).embed(["Why?"]))

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TokenView
from vtpbench.pruners.errors import BadOption, Infeasible, Unsupported, UserError
from vtpbench.pruners.oc_vtp import OCVTP
from vtpbench.pruners.oc_vtp.checkpoint import Header, load, save
from vtpbench.pruners.oc_vtp.decoder import DecoderDims, Reconstructor
from vtpbench.pruners.oc_vtp.dims import Dims
from vtpbench.pruners.oc_vtp.pruner import choose, winners
from vtpbench.pruners.oc_vtp.tower import hash_weights, tower_hash

SHAPE = ModelShape("llava", 4, 4, 32, 24, 24, 22, True, tuple(range(24)))
QWEN = replace(SHAPE, family="qwen2_5_vl", vision_layers=32, feature_layer=31, has_cls=False, full_attention=(7, 15, 23, 31))
HEADER = Header(model="tiny", tower="abc", layer=8, tokens=36)
# the worked example of the specification: 4 slots, 6 tokens, attention that tokens receive
ATTENTION = torch.tensor(
    [
        [0.40, 0.2, 0.1, 0.1, 0.3, 0.2],
        [0.35, 0.2, 0.1, 0.2, 0.3, 0.1],
        [0.15, 0.3, 0.1, 0.6, 0.2, 0.1],
        [0.10, 0.3, 0.7, 0.1, 0.2, 0.6],
    ]
)[None]
RECEIVED = torch.tensor([[0.05, 0.20, 0.10, 0.02, 0.18, 0.15]])


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Reconstructor(Dims(24, 32, 16, 32), DecoderDims(36, 1, 2, 16)).state_dict()


@pytest.fixture
def checkpoint(tmp_path: Path, state: dict[str, Tensor]) -> str:
    save(tmp_path / "oc.safetensors", state, HEADER)
    return str(tmp_path / "oc.safetensors")


def view(images: int = 2, keep: int = 8, n: int = 36, seed: int = 1) -> TokenView:
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(images, n, 24, generator=random)
    received, cls = torch.rand(2, images, n, generator=random)
    evidence = {Evidence("hidden", 8): hidden, Evidence("received", 22): received, Evidence("cls", 22): cls}
    index = torch.arange(n).expand(images, -1)
    return TokenView(Cut(0, keep), 0, hidden, index, Grid(1, 1, n), SHAPE, tuple(f"image{i}" for i in range(images)), evidence)


def part(whole: TokenView, rows: slice) -> TokenView:
    evidence = {name: value[rows] for name, value in whole.evidence.items()}
    return replace(whole, features=whole.features[rows], index=whole.index[rows], keys=whole.keys[rows], evidence=evidence)


def test_worked_selection() -> None:
    chosen = winners(ATTENTION, 1)
    assert chosen.nonzero()[:, 1].tolist() == [0, 2, 3]
    assert choose(chosen, ATTENTION, RECEIVED, 4).tolist() == [[0, 1, 2, 3]]


def test_two_tokens_per_slot() -> None:
    assert winners(ATTENTION, 2).nonzero()[:, 1].tolist() == [0, 1, 2, 3, 4, 5]  # {0,4} {0,4} {3,1} {2,5}
    assert winners(ATTENTION[:, :2], 2).nonzero()[:, 1].tolist() == [0, 4]


def test_surplus_drops_the_least_attended() -> None:
    assert choose(winners(ATTENTION, 1), ATTENTION, RECEIVED, 2).tolist() == [[2, 3]]


def test_normalising_over_tokens_would_choose_otherwise() -> None:
    """Column offsets of the logits vanish in the softmax over slots, but would decide a softmax over tokens."""
    logits = ATTENTION.log() + torch.tensor([0.0, 0.0, 0.0, 0.0, 5.0, 0.0])
    assert winners(logits.softmax(1), 1).nonzero()[:, 1].tolist() == [0, 2, 3]
    assert winners(logits.softmax(2), 1).nonzero()[:, 1].tolist() == [4]


@pytest.mark.parametrize(
    "options", [{}, {"pad": "random"}, {"attention": "cls"}, {"top_k": 3}, {"slots": 20}, {"compat_extra_slot": True}]
)
def test_padded_count_is_exact(checkpoint: str, options: dict[str, Any]) -> None:
    pruner = OCVTP(checkpoint, **options)
    for keep in (3, 8, 35, 36):
        found = pruner.apply(view(keep=keep))
        assert found.index.shape == (2, keep)
        assert bool((found.index.diff(dim=1) > 0).all())
        assert found.index.min() >= 0
        assert found.index.max() < 36
        assert found.valid is None
    assert not pruner.adaptive


def test_unpadded_keeps_the_winners(checkpoint: str) -> None:
    pruner, shown = OCVTP(checkpoint, pad="none"), view(keep=30)
    unpadded, padded = pruner.apply(shown), OCVTP(checkpoint).apply(shown)
    assert pruner.adaptive
    assert unpadded.valid is not None
    for row in range(2):
        kept = set(unpadded.index[row][unpadded.valid[row]].tolist())
        assert 1 <= len(kept) < 30
        assert kept <= set(padded.index[row].tolist())
    assert pruner.segments(shown).shape == (2, 36)
    assert pruner.segments(shown).max() < 30


def test_padding_follows_received_attention(checkpoint: str) -> None:
    shown = view(images=1, keep=30)
    winning = OCVTP(checkpoint, pad="none").apply(shown)
    assert winning.valid is not None
    won = set(winning.index[winning.valid].tolist())
    for pruner, asked in (
        (OCVTP(checkpoint), Evidence("received", 22)),
        (OCVTP(checkpoint, attention="cls"), Evidence("cls", 22)),
    ):
        others = [i for i in shown.evidence[asked][0].argsort(descending=True).tolist() if i not in won]
        assert pruner.apply(shown).index[0].tolist() == sorted(won | set(others[: 30 - len(won)]))


@pytest.mark.parametrize("pad", ["att_score", "random", "none"])
def test_same_alone_as_in_a_batch(checkpoint: str, pad: Any) -> None:
    pruner, whole = OCVTP(checkpoint, pad=pad), view()
    both = pruner.apply(whole).index
    assert torch.equal(both, torch.cat([pruner.apply(part(whole, slice(i, i + 1))).index for i in range(2)]))
    torch.manual_seed(7)  # no global state may matter
    assert torch.equal(pruner.apply(whole).index, both)


def test_permuted_tokens_are_the_same_tokens(checkpoint: str) -> None:
    pruner, whole, order = OCVTP(checkpoint), view(), torch.randperm(36)
    moved = replace(whole, evidence={name: value[:, order] for name, value in whole.evidence.items()})
    back = order[pruner.apply(moved).index].sort(-1).values
    assert torch.equal(back, pruner.apply(whole).index)


def test_seed_matters_and_none_follows_the_global_generator(checkpoint: str) -> None:
    shown = view(keep=8)
    seeds = {tuple(OCVTP(checkpoint, seed=seed, pad="none").apply(shown).index.flatten().tolist()) for seed in range(4)}
    assert len(seeds) > 1
    free = OCVTP(checkpoint, seed=None)
    torch.manual_seed(3)
    first = free.apply(shown).index
    torch.manual_seed(3)
    assert torch.equal(free.apply(shown).index, first)


def test_published_layouts_prune_alike(tmp_path: Path, checkpoint: str, state: dict[str, Tensor]) -> None:
    expected = OCVTP(checkpoint).apply(view()).index
    bare = {name: value for name, value in state.items() if not name.startswith("decode.")}
    for name, content in (("whole.pth", state), ("bare.pth", bare), ("nested.pth", {"state_dict": state})):
        torch.save(content, tmp_path / name)
        assert torch.equal(OCVTP(str(tmp_path / name)).apply(view()).index, expected)
    assert load(tmp_path / "whole.pth").header.tokens == 36
    assert load(tmp_path / "bare.pth").header.tokens is None


def test_path_is_relative_to_the_working_directory(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(checkpoint).parent)
    assert torch.equal(OCVTP("oc.safetensors").apply(view()).index, OCVTP(checkpoint).apply(view()).index)


def test_rewritten_checkpoint_is_read_anew(checkpoint: str, state: dict[str, Tensor]) -> None:
    before = OCVTP(checkpoint).apply(view()).index
    save(Path(checkpoint), {name: value.flip(0) for name, value in state.items()}, HEADER)
    os.utime(checkpoint, ns=(1, 1))
    assert not torch.equal(OCVTP(checkpoint).apply(view()).index, before)


def test_without_checkpoint_names_the_command() -> None:
    with pytest.raises(Unsupported, match="vtpbench train oc-vtp --model"):
        OCVTP().needs(SHAPE)
    with pytest.raises(UserError, match="vtpbench train oc-vtp --model"):
        OCVTP("nowhere.safetensors").needs(SHAPE)


def test_needs(checkpoint: str, tmp_path: Path, state: dict[str, Tensor]) -> None:
    assert OCVTP(checkpoint).needs(SHAPE) == {Evidence("hidden", 8), Evidence("received", 22)}
    assert OCVTP(checkpoint, attention="cls").needs(SHAPE) == {Evidence("hidden", 8), Evidence("cls", 22)}
    assert OCVTP(checkpoint, pad="none").needs(SHAPE) == {Evidence("hidden", 8)}
    torch.save(state, tmp_path / "weights.pth")
    published = OCVTP(str(tmp_path / "weights.pth"))
    assert Evidence("hidden", 8) in published.needs(SHAPE)
    assert published.needs(QWEN) == {Evidence("hidden", 15), Evidence("received", 31)}
    assert Evidence("hidden", 22) in replace(published, layer=-2).needs(SHAPE)
    with pytest.raises(Unsupported, match="no CLS token"):
        replace(published, attention="cls").needs(QWEN)
    with pytest.raises(Unsupported, match="layer 24"):
        replace(published, layer=24).needs(SHAPE)


def test_checkpoint_of_another_tower_is_refused(checkpoint: str) -> None:
    with pytest.raises(Unsupported, match="vision width 24 there, 32 here"):
        OCVTP(checkpoint).needs(replace(SHAPE, vision_width=32))
    with pytest.raises(Unsupported, match="vision layer 8 there, 10 here"):
        OCVTP(checkpoint, layer=10).needs(SHAPE)
    with pytest.raises(Unsupported, match="tokens per image 36 there, 180 here"):
        OCVTP(checkpoint).cuts(8, 180, SHAPE)
    with pytest.raises(Unsupported, match=r"trained on tiny.* vision tower abc there, xyz here"):
        load(checkpoint).verify(tower="xyz")
    load(checkpoint).verify(tower="abc", tokens=36, layer=8, width=24)


def test_damaged_checkpoints(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({name: value for name, value in state.items() if name != "initializ.mean"}, tmp_path / "missing.pth")
    with pytest.raises(UserError, match=r"initializ\.mean"):
        OCVTP(str(tmp_path / "missing.pth")).apply(view())
    torch.save({"state_dict": object}, tmp_path / "code.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("code.pth", "text.pth", "text.safetensors"):
        with pytest.raises(UserError, match=name):
            load(tmp_path / name)


def test_schedule(checkpoint: str) -> None:
    assert OCVTP(checkpoint).cuts(8, 36, SHAPE) == (Cut(0, 8),)
    with pytest.raises(Infeasible, match="top_k 9"):
        OCVTP(checkpoint, top_k=9).cuts(8, 36, SHAPE)
    assert OCVTP(checkpoint, top_k=9, compat_extra_slot=True).cuts(8, 36, SHAPE) == (Cut(0, 8),)


@pytest.mark.parametrize("options", [{"pad": None}, {"attention": "row"}, {"top_k": 0}, {"slots": 0}])
def test_unusable_options(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption) as error:
        OCVTP(**options)
    assert error.value.option in options


def test_pruner_is_a_value(checkpoint: str) -> None:
    assert len({OCVTP(checkpoint), OCVTP(checkpoint), OCVTP(checkpoint, top_k=2)}) == 2


def test_tower_hash() -> None:
    weights = {"b": np.arange(4, dtype=np.float32), "a": np.ones(1, dtype=np.float32)}
    assert hash_weights(weights.items()) == hash_weights(reversed(weights.items()))
    assert hash_weights(weights.items()) != hash_weights({**weights, "b": np.arange(4, dtype=np.float32).reshape(2, 2)}.items())
    assert hash_weights(weights.items()) != hash_weights({**weights, "b": np.arange(1, 5, dtype=np.float32)}.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tower_is_the_same_in_every_number_format(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = {"model.vision_tower.b": torch.arange(6.0).view(2, 3), "model.vision_tower.a": torch.ones(3)}
    save_file({name: value.to(dtype) for name, value in weights.items()}, tmp_path / "model.safetensors")
    assert tower_hash(tmp_path) == "584085315f1b8529", "checkpoints that were trained earlier name it so"

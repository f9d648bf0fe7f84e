from __future__ import annotations

import pytest
import torch
from torch import nn

from vtpbench.pruners.oc_vtp.decoder import DecoderDims, Masking, Reconstructor, SlotDecoder, draw_masking
from vtpbench.pruners.oc_vtp.dims import Dims
from vtpbench.pruners.oc_vtp.network import OCPruner, start_as_clustering

SMALL = Dims(features=24, hidden=32, slots=16, ffn=32)
SIZE = DecoderDims(tokens=9, layers=2, heads=4, ffn=32)


def published_keys(layers: int) -> set[str]:
    """Write down the published layout, name by name."""
    both = ("weight", "bias")
    keys = {f"encode_project.mlp.{i}.{kind}" for i in (0, 1, 4) for kind in both}
    keys |= {"initializ.mean", "initializ.logstd"}
    keys |= {f"aggregat.{norm}.{kind}" for norm in ("norm_in", "norm_slots_0", "norm_slots_1") for kind in both}
    keys |= {f"aggregat.proj_{x}.weight" for x in "qkv"}
    keys |= {f"aggregat.gru.{kind}_{where}" for kind in both for where in ("ih", "hh")}
    keys |= {f"aggregat.ffn.mlp.{i}.{kind}" for i in (0, 3) for kind in both}
    keys |= {"decode.mask_token", "decode.posit_embed._pe", "decode.norm0.weight"}
    for i in (1, 2):
        keys |= {f"decode.project{i}.{name}" for name in ("project.weight", "norm.weight", "norm.bias")}
    for i in range(layers):
        layer = f"decode.backbone.layers.{i}"
        keys |= {f"{layer}.{a}.{w}" for a in ("self_attn", "multihead_attn") for w in ("in_proj_weight", "out_proj.weight")}
        keys |= {f"{layer}.{name}.weight" for name in ("linear1", "linear2", "norm2", "norm3")}
        keys |= {f"{layer}.norm1.weight"} if i else set()
    return keys


@pytest.fixture
def pruner() -> OCPruner:
    torch.manual_seed(0)
    return OCPruner(SMALL).eval()


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_sizes() -> None:
    with torch.device("meta"):
        pruner, decoder = OCPruner(Dims()), SlotDecoder(Dims(), DecoderDims())
    assert count(pruner) == 7_616_512
    assert [count(part) for part in (pruner.encode_project, pruner.initializ, pruner.aggregat)] == [3_150_336, 1_024, 4_465_152]
    assert count(decoder) == 69_288_960


def test_published_names() -> None:
    with torch.device("meta"):
        model = Reconstructor(Dims(), DecoderDims())
    assert set(model.state_dict()) == published_keys(layers=4)
    assert Dims.of({name: value.shape for name, value in model.state_dict().items()}, 3) == Dims()


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = Reconstructor(Dims(features=64, slots=512, hidden=8, ffn=8), SIZE)
    bound = (6 / 1024) ** 0.5
    assert model.initializ.mean.abs().max() <= bound
    assert model.initializ.logstd.exp().mean().item() == pytest.approx(1, abs=0.05)
    assert all(not p.any() for name, p in model.named_parameters() if ".bias" in name)
    first, second = model.decode.backbone.layers
    assert torch.equal(first.linear1.weight, second.linear1.weight)


def test_attention_competes_over_slots(pruner: OCPruner) -> None:
    _, attention = pruner.bind(torch.randn(2, 9, 24), torch.randn(4, 16))
    torch.testing.assert_close(attention.sum(1), torch.ones(2, 9))
    assert (attention.sum(2) - 1).abs().min() > 1e-3


def test_permuting_slots_permutes_rows(pruner: OCPruner) -> None:
    features, noise, order = torch.randn(2, 9, 24), torch.randn(4, 16), torch.randperm(4)
    torch.testing.assert_close(pruner.bind(features, noise[order])[1], pruner.bind(features, noise)[1][:, order])


def test_permuting_tokens_permutes_columns(pruner: OCPruner) -> None:
    features, noise, order = torch.randn(2, 9, 24), torch.randn(4, 16), torch.randperm(9)
    torch.testing.assert_close(pruner.bind(features[:, order], noise)[1], pruner.bind(features, noise)[1][..., order])


def test_filling_changes_nothing(pruner: OCPruner) -> None:
    features, noise = torch.randn(1, 9, 24), torch.randn(4, 16)
    valid = torch.arange(9)[None] < 6
    slots, attention = pruner.bind(features, noise, valid)
    alone_slots, alone = pruner.bind(features[:, :6], noise)
    torch.testing.assert_close(slots, alone_slots)
    torch.testing.assert_close(attention[..., :6], alone)
    assert not attention[..., 6:].any()


def test_last_round_alone_is_differentiated(pruner: OCPruner) -> None:
    """The gradient skips the earlier rounds, yet reaches the initial slots as if they were the last round's input."""
    features, noise = torch.randn(1, 9, 24), torch.randn(4, 16)
    slots, _ = pruner.bind(features, noise)
    slots.sum().backward()  # type: ignore[no-untyped-call]  # torch
    gradient = pruner.initializ.mean.grad
    assert gradient is not None
    pruner.aggregat.iterations = 2
    before_last = pruner.bind(features, noise)[0].detach().requires_grad_()
    pruner.aggregat.iterations = 1
    after, _ = pruner.aggregat(pruner.encode_project(features), before_last)
    torch.testing.assert_close(after, slots)
    after.sum().backward()
    assert before_last.grad is not None
    torch.testing.assert_close(gradient, before_last.grad.sum(1, keepdim=True))


def test_masking() -> None:
    present = torch.arange(20) < torch.tensor([20, 12, 1]).repeat_interleave(200)[:, None]
    masking = draw_masking(present, 7, torch.Generator().manual_seed(0))
    assert torch.equal(masking.order.sort(-1).values, torch.arange(20).expand(600, -1))
    assert bool((present.gather(1, masking.order).int().diff(dim=1) <= 0).all())  # filling comes last
    long, short, single = masking.prefix.view(3, 200)
    assert set(long.tolist()) == set(range(19))
    assert set(short.tolist()) == set(range(11))
    assert 60 < (short == 7).sum() < 160
    assert not single.any()
    assert (draw_masking(present, None, torch.Generator().manual_seed(0)).prefix.view(3, 200)[0] == 1).sum() > 60


def test_decoder_sees_only_the_prefix() -> None:
    torch.manual_seed(0)
    model = Reconstructor(SMALL, SIZE).eval()
    features, slots, places = torch.randn(1, 9, 24), torch.randn(1, 4, 16), torch.zeros(1, 9, 2)
    masking = Masking(torch.randperm(9)[None], torch.tensor([[3]]))
    shown, hidden = masking.order[0, :3], masking.order[0, 3:]
    first = model.decode(features, slots, masking, None, places)
    changed = features.clone()
    changed[:, hidden] = 5 * torch.randn(1, 6, 24)
    torch.testing.assert_close(model.decode(changed, slots, masking, None, places), first)
    changed[:, shown[0]] += 1
    assert (model.decode(changed, slots, masking, None, places) - first).abs().max() > 1e-3


def test_decoder_ignores_filling() -> None:
    torch.manual_seed(0)
    model = Reconstructor(SMALL, DecoderDims(tokens=None, layers=2, heads=4, ffn=32)).eval()
    features, slots, places = torch.randn(1, 9, 24), torch.randn(1, 4, 16), torch.randint(0, 5, (1, 9, 2))
    order, valid = torch.cat([torch.randperm(6), torch.arange(6, 9)])[None], torch.arange(9)[None] < 6
    full = model.decode(features, slots, Masking(order, torch.tensor([[2]])), valid, places)
    alone = model.decode(features[:, :6], slots, Masking(order[:, :6], torch.tensor([[2]])), None, places[:, :6])
    torch.testing.assert_close(full[:, :6], alone)


def test_start_as_clustering_separates_what_differs() -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(1, 4, 24, generator=generator).repeat_interleave(9, 1)  # four kinds of token, nine of each
    tokens = kinds + 0.1 * torch.randn(1, 36, 24, generator=generator)
    noise = torch.randn(8, 16, generator=generator)
    found = {}
    for start in ("ordinary", "clustering"):
        torch.manual_seed(0)
        network = OCPruner(SMALL).eval()
        if start == "clustering":
            start_as_clustering(network.aggregat)
        found[start] = network.bind(tokens, noise)[1][0]
    owners = [set(kind.tolist()) for kind in found["clustering"].argmax(0).view(4, 9)]
    assert sum(map(len, owners)) == len(set().union(*owners)) <= 8  # different things never share a slot
    assert found["clustering"].amax(0).mean() > 2 * found["ordinary"].amax(0).mean()


def test_standardised_targets_weigh_all_channels_alike() -> None:
    features = torch.randn(5, 9, 24, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, 2, 24) + 7
    decoder = SlotDecoder(SMALL, DecoderDims(tokens=9, layers=1, heads=4, ffn=32, standardise=True))
    decoder.mean.copy_(features.mean((0, 1)))
    decoder.deviation.copy_(features.std((0, 1)))
    target = decoder.target(features)
    torch.testing.assert_close(target.var((0, 1)), torch.ones(24))
    raw = SlotDecoder(SMALL, SIZE)
    assert raw.target(features) is features
    assert "mean" not in raw.state_dict()  # the published layout stays

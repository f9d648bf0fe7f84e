from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TextView, TokenView, average_in
from vtpbench.pruners.errors import Infeasible, Unsupported, UserError
from vtpbench.pruners.sparsevlm import SparseVLM
from vtpbench.pruners.sparsevlm.counts import clusters, fair_cuts, list_cuts, recycled
from vtpbench.pruners.sparsevlm.merge import cluster, merge_clusters, peaks
from vtpbench.pruners.sparsevlm.rating import pick_raters, rate, rate_corrected, rotary_decay

SHAPE = ModelShape("test", 32, 4, 32, 4, 32, 3, has_cls=True, full_attention=(0, 1, 2, 3))
EMBEDDINGS, ROTARY, TEXT = Evidence("embeddings"), Evidence("rotary"), Evidence("text", -1)

VISION = torch.tensor([[[1.0, 0], [0, 1], [1, 1]]])
WORDS = torch.tensor([[[2.0, 0], [0, 0], [1, 2], [0, -1]]])
ATTENTION = torch.tensor(
    [
        [
            [[0.10, 0.30, 0.05], [0.2, 0.1, 0.1], [0.05, 0.15, 0.40], [0.1, 0.1, 0.1]],
            [[0.30, 0.10, 0.05], [0.2, 0.1, 0.1], [0.15, 0.05, 0.20], [0.1, 0.1, 0.1]],
        ]
    ]
)
POINTS = torch.tensor([[[0.0, 0], [1, 0], [0, 2], [10, 0], [10, 1], [13, 0]]])


ROPE = 10_000.0 ** (-torch.arange(0, 16, 2) / 16)


def angles(position: torch.Tensor, rope: torch.Tensor = ROPE) -> torch.Tensor:
    """Cosines and sines of rotary angles, `(..., head_dim)`."""
    turned = position[..., None] * rope
    return torch.cat([turned.cos(), turned.sin()], dim=-1)


def text_of(real: torch.Tensor, embeddings: torch.Tensor, rotary: torch.Tensor) -> TextView:
    return TextView(real, {EMBEDDINGS: embeddings, ROTARY: rotary})


def random_view(images: int = 2, n: int = 60, keep: int = 20, seed: int = 0, heads: int = 4) -> TokenView:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    text = 7
    real = torch.ones(images, text, dtype=torch.bool)
    real[1:, 5:] = False
    turned = angles(torch.arange(5, 5 + n))
    return TokenView(
        cut=Cut(3, keep, 2 if keep < n else 0),
        stage=0,
        features=draw(images, n, 8),
        index=torch.arange(n).expand(images, n),
        grid=Grid(1, 1, n),
        shape=SHAPE,
        keys=tuple("abcdefg"[:images]),
        evidence={EMBEDDINGS: draw(images, n, 8), TEXT: draw(images, heads, text, n), ROTARY: turned.expand(images, n, 16)},
        text=text_of(real, draw(images, text, 8), angles(torch.arange(5 + n, 5 + n + text)).expand(images, text, 16)),
    )


def only(view: TokenView, i: int) -> TokenView:
    """Take one image of a batch, its text without filling."""
    assert view.text is not None
    rows, real = slice(i, i + 1), view.text.real[i]
    return replace(
        view,
        features=view.features[rows],
        index=view.index[rows],
        keys=view.keys[rows],
        evidence={
            EMBEDDINGS: view.evidence[EMBEDDINGS][rows],
            TEXT: view.evidence[TEXT][rows][:, :, real],
            ROTARY: view.evidence[ROTARY][rows],
        },
        text=text_of(*(part[rows][:, real] for part in (view.text.real, view.text.get("embeddings"), view.text.get("rotary")))),
    )


def test_golden_c_raters() -> None:
    real = torch.ones(1, 4, dtype=torch.bool)
    relevance = (VISION @ WORDS.mT).softmax(dim=-1).mean(dim=1)
    torch.testing.assert_close(relevance, torch.tensor([[0.3230, 0.0733, 0.5594, 0.0444]]), atol=1e-4, rtol=0)
    assert pick_raters(VISION, WORDS, real).tolist() == [[True, False, True, False]]


def test_filling_is_no_text() -> None:
    filled = torch.cat([torch.full((1, 2, 2), 100.0), WORDS], dim=1)
    real = torch.tensor([[False, False, True, True, True, True]])
    assert pick_raters(VISION, filled, real).tolist() == [[False, False, True, False, True, False]]


def test_text_of_equal_relevance_rates_as_a_whole() -> None:
    real = torch.tensor([[True, True, True, False]])
    assert pick_raters(VISION, torch.ones(1, 4, 2), real).tolist() == real.tolist()


def test_golden_d_score_and_tie() -> None:
    raters = torch.tensor([[True, False, True, False]])
    torch.testing.assert_close(rate(ATTENTION, raters), torch.tensor([[0.150, 0.150, 0.175]]))
    view = replace(
        random_view(images=1, n=3, keep=2),
        evidence={EMBEDDINGS: VISION, TEXT: ATTENTION},
        text=TextView(torch.ones(1, 4, dtype=torch.bool), {EMBEDDINGS: WORDS}),
    )
    assert SparseVLM().select(view).tolist() == [[0, 2]]


def test_golden_e_clustering() -> None:
    distance = torch.cdist(POINTS, POINTS) / 2**0.5
    density, separation = peaks(distance, 3)
    torch.testing.assert_close(density, torch.tensor([[0.4346, 0.36788, 0.22313, 0.18888, 0.15988, 0.04214]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(separation, torch.tensor([[9.3005, 0.7071, 1.4142, 6.3640, 0.7071, 2.1213]]), atol=1e-4, rtol=0)
    centres, members = cluster(POINTS, 3)
    assert centres.tolist() == [[0, 3, 2]]
    assert members.tolist() == [[0, 0, 2, 1, 1, 1]]
    merged, _ = merge_clusters(POINTS, 3)
    torch.testing.assert_close(merged, torch.tensor([[[0.5, 0], [11, 1 / 3], [0, 2]]]))


def test_of_two_equally_dense_neighbours_the_first_is_the_centre() -> None:
    pairs = torch.tensor([[[0.0, 0], [1, 0], [20, 0], [22, 0]]])
    centres, members = cluster(pairs, 2)
    assert centres.tolist() == [[0, 2]]
    assert members.tolist() == [[0, 0, 1, 1]]


def test_equal_tokens_still_give_every_cluster_a_member() -> None:
    merged, centres = merge_clusters(torch.ones(1, 12, 4), 2)
    assert centres.tolist() == [[0, 1]]
    assert torch.equal(merged, torch.ones(1, 2, 4))


def test_golden_f_and_g_counts() -> None:
    assert 3 * 510 // 10 == int(0.3 * 510) == 153
    assert (recycled(510), clusters(510), list_cuts((3,), (66,), 576, True)) == (154, 16, (Cut(3, 82, 16),))


def test_cuts_tell_what_is_kept_from_what_is_merged() -> None:
    for n in (2, 30, 300):
        for kept in range(1, n + 1):
            (cut,) = list_cuts((3,), (kept,), n, True)
            merged = cut.keep - kept if cut.keep < n else 0
            assert (cut.keep, cut.merged) == (kept + clusters(n - kept), merged)
            assert merged <= recycled(n - kept) <= n - kept
    assert list_cuts((3,), (30,), 60, True) == (Cut(3, 32, 2),)
    assert list_cuts((3,), (31,), 60, True) == (Cut(3, 32, 1),), "as many rows, other ones"


def test_the_same_count_split_in_two_ways_keeps_other_rows() -> None:
    for merged in (1, 2):
        view = replace(random_view(n=60), cut=Cut(3, 32, merged))
        keep, order = SparseVLM().reduce(view), SparseVLM().score(view).argsort(dim=-1, descending=True)
        assert [row[: 32 - merged] for row in keep.index.tolist()] == order[:, : 32 - merged].sort(dim=-1).values.tolist()


def test_the_shortest_schedule_keeps_one_and_merges_the_rest() -> None:
    cuts = fair_cuts("1.5", (3, 6, 14), 45, 400, 28)
    assert cuts == list_cuts((3, 6, 14), (1, 1, 1), 400, True) == (Cut(3, 14, 13), Cut(6, 2, 1), Cut(14, 2))
    assert average_in(cuts, 400, 28) == pytest.approx(45.93, abs=0.01)
    with pytest.raises(Infeasible, match="at least 46 on average, not 45"):
        SparseVLM().cuts(45, 400, replace(SHAPE, decoder_layers=28))


@pytest.mark.parametrize(
    ("nominal", "stages", "remaining", "avg_out", "avg_in"),
    [
        (192, [(300, 83, 9), (200, 33, 4), (110, 29, 3)], [309, 204, 113], 192.03, 206.50),
        (128, [(303, 82, 9), (110, 61, 7), (36, 25, 3)], [312, 117, 39], 128.63, 145.41),
        (96, [(238, 102, 11), (48, 61, 7), (26, 9, 1)], [249, 55, 27], 96.94, 114.09),
        (64, [(66, 154, 16), (30, 16, 2), (17, 5, 1)], [82, 32, 18], 64.81, 82.25),
    ],
)
def test_published_schedules_of_version_1_5(
    nominal: int, stages: list[tuple[int, int, int]], remaining: list[int], avg_out: float, avg_in: float
) -> None:
    pruner = SparseVLM(schedule="paper")
    cuts = pruner.cuts(nominal, 576, SHAPE)
    assert [cut.at for cut in cuts] == [3, 7, 16]
    assert [cut.keep for cut in cuts] == remaining
    kept = [cut.keep - cut.merged for cut in cuts]
    pools = [recycled(n - count) for n, count in zip([576, *remaining], kept, strict=False)]
    assert list(zip(kept, pools, [cut.merged for cut in cuts], strict=True)) == stages
    assert average_in(tuple(Cut(cut.at - 1, cut.keep) for cut in cuts), 576, 32) == pytest.approx(avg_out, abs=0.005)
    assert pruner.expected_average(nominal, 576, SHAPE) == pytest.approx(avg_in, abs=0.01)
    assert SparseVLM().expected_average(nominal, 576, SHAPE) == nominal


@pytest.mark.parametrize(
    ("nominal", "kept", "avg_in"),
    [(192, [300, 200, 118], 206.75), (128, [238, 108, 60], 144.125), (96, [246, 54, 28], 113.9375), (64, [66, 34, 20], 81.8125)],
)
def test_published_schedules_of_version_2(nominal: int, kept: list[int], avg_in: float) -> None:
    pruner = SparseVLM(version="2", schedule="paper")
    assert [cut.keep for cut in pruner.cuts(nominal, 576, SHAPE)] == kept
    assert pruner.expected_average(nominal, 576, SHAPE) == avg_in


@pytest.mark.parametrize(
    ("version", "budget", "kept"),
    [
        ("1.5", 192, [271, 180, 99]),
        ("1.5", 128, [241, 88, 29]),
        ("1.5", 64, [19, 8, 5]),
        ("2", 192, [271, 181, 106]),
        ("2", 128, [196, 89, 49]),
        ("2", 64, [24, 12, 7]),
    ],
)
def test_fair_schedules_keep_the_shape_of_the_published_ones(version: str, budget: int, kept: list[int]) -> None:
    pruner = SparseVLM(version=version)  # type: ignore[arg-type]  # parametrised literal
    cuts = pruner.cuts(budget, 576, SHAPE)
    assert [cut.keep - cut.merged for cut in cuts] == kept
    assert average_in(cuts, 576, 32) == pytest.approx(budget, abs=0.5)


def test_budgets_out_of_reach_are_refused() -> None:
    with pytest.raises(Infeasible, match=r"SparseVLM 1\.5 keeps all 2880 tokens in 3 of 32 layers: at least 2"):
        SparseVLM().cuts(160, 2880, SHAPE)
    with pytest.raises(Infeasible, match=r"SparseVLM 2 has published schedules for 192, 128, 96, 64 of 576 tokens"):
        SparseVLM(version="2", schedule="paper").cuts(320, 2880, SHAPE)


def test_merged_rows_follow_the_kept_ones_and_are_means_of_recycled_tokens() -> None:
    view = random_view()
    assert (view.cut,) == list_cuts((3,), (18,), 60, True)
    keep = SparseVLM().reduce(view)
    kept, pool, count = 18, 13, 2
    order = SparseVLM().score(view).argsort(dim=-1, descending=True)
    assert keep.features is not None
    assert keep.features.shape == (2, 20, 8)
    for image in range(2):
        stay, merged = keep.index[image, :kept], keep.index[image, kept:]
        assert stay.tolist() == sorted(order[image, :kept].tolist())
        assert set(merged.tolist()) <= set(order[image, kept : kept + pool].tolist())
        assert len(set(keep.index[image].tolist())) == kept + count
        assert torch.equal(keep.features[image, :kept], view.features[image, stay])
        source = view.features[image, order[image, kept : kept + pool]]
        assert (keep.features[image, kept:] >= source.amin(dim=0) - 1e-6).all()
        assert (keep.features[image, kept:] <= source.amax(dim=0) + 1e-6).all()


def test_members_of_all_clusters_weighted_by_size_give_the_mean_of_the_pool() -> None:
    x = torch.rand(3, 40, 6, generator=torch.Generator().manual_seed(1))
    merged, _ = merge_clusters(x, 5)
    sizes = torch.stack([torch.bincount(m, minlength=5) for m in cluster(x, 5)[1]])[..., None]
    torch.testing.assert_close((merged * sizes).sum(dim=1) / 40, x.mean(dim=1))


@pytest.mark.parametrize("version", ["1.5", "2"])
def test_a_cut_that_keeps_all_changes_nothing(version: str) -> None:
    keep = SparseVLM(version=version).reduce(random_view(keep=60))  # type: ignore[arg-type]  # parametrised literal
    assert keep.features is None
    assert keep.index.tolist() == [list(range(60))] * 2


@pytest.mark.parametrize("version", ["1.5", "2"])
def test_an_image_is_treated_as_if_alone(version: str) -> None:
    pruner, view = SparseVLM(version=version), random_view(images=3)  # type: ignore[arg-type]  # parametrised literal
    batch = pruner.reduce(view)
    for i in range(3):
        alone = pruner.reduce(only(view, i))
        assert torch.equal(alone.index[0], batch.index[i])
        if alone.features is not None and batch.features is not None:
            torch.testing.assert_close(alone.features[0], batch.features[i])


@pytest.mark.parametrize("version", ["1.5", "2"])
def test_what_padded_text_columns_hold_does_not_matter(version: str) -> None:
    pruner, view = SparseVLM(version=version), random_view()  # type: ignore[arg-type]  # parametrised literal
    assert view.text is not None
    attention = view.evidence[TEXT].clone()
    attention[1, :, 5:] = float("nan")
    embeddings = view.text.get("embeddings").masked_fill(~view.text.real[..., None], float("nan"))
    text = text_of(view.text.real, embeddings, view.text.get("rotary"))
    spoiled = replace(view, evidence={**view.evidence, TEXT: attention}, text=text)
    assert torch.equal(pruner.reduce(spoiled).index, pruner.reduce(view).index)


def test_heads_may_be_permuted() -> None:
    view = random_view()
    shuffled = replace(view, evidence={**view.evidence, TEXT: view.evidence[TEXT][:, [2, 0, 3, 1]]})
    for pruner in (SparseVLM(), SparseVLM(version="2")):
        torch.testing.assert_close(pruner.score(shuffled), pruner.score(view))


def test_decay_of_llama_turns_negative_at_distance_1707() -> None:
    rope = 10_000.0 ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    distance = torch.arange(4096)[None]
    decay = rotary_decay(angles(distance, rope), angles(torch.zeros(1, 1), rope))[0, :, 0]
    authors = 2 / 128**0.5 * (distance[0, :, None] * rope).cos().sum(dim=-1)
    torch.testing.assert_close(decay * 128**0.5, authors)
    assert authors[:700].min() >= 1.19
    assert int((decay <= 0).nonzero()[0]) == 1707
    assert int((decay <= 0).sum()) == 419
    assert decay[:700].min() > SparseVLM().clamp, "the default floor must leave the authors' case alone"  # type: ignore[operator]  # not None


@pytest.mark.parametrize(("width", "clamped", "negative"), [(128, 721, 1707), (64, 406, 725), (16, 90, 91)])
def test_where_the_default_floor_acts(width: int, clamped: int, negative: int) -> None:
    rope = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    decay = rotary_decay(angles(torch.arange(2000)[None], rope), angles(torch.zeros(1, 1), rope))[0, :, 0]
    assert [int((decay < floor).nonzero()[0]) for floor in (0.1, 0)] == [clamped, negative]


@pytest.mark.parametrize(("width", "same"), [(128, True), (16, False)])
def test_the_default_floor_changes_the_authors_scores_of_narrow_heads_only(width: int, same: bool) -> None:
    rope = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    view = random_view(images=1)
    assert view.text is not None
    turned = {ROTARY: angles(torch.arange(60)[None], rope).float()}
    text = text_of(view.text.real, view.text.get("embeddings"), angles(torch.arange(693, 700)[None], rope).float())
    far = replace(view, evidence={**view.evidence, **turned}, text=text)
    scores = [SparseVLM(version="2", clamp=clamp).score(far) for clamp in (0.1, None)]
    assert torch.equal(*scores) == same


def test_decay_with_a_base_of_a_million_stays_positive() -> None:
    rope = 1e6 ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    decay = rotary_decay(angles(torch.arange(4096)[None], rope), angles(torch.zeros(1, 1), rope))
    assert float(decay.min()) * 128**0.5 == pytest.approx(2.29, abs=0.005)


def test_version_2_boosts_distant_tokens_unless_the_decay_is_flat() -> None:
    view = random_view(images=1)
    assert view.text is not None
    even = replace(view, evidence={**view.evidence, TEXT: torch.ones(1, 4, 7, 60)})
    score = SparseVLM(version="2").score(even)
    assert score[0, 0] > score[0, -1]
    still = {**view.evidence, ROTARY: angles(torch.zeros(1, 60))}
    text = text_of(view.text.real, view.text.get("embeddings"), angles(torch.zeros(1, 7)))
    flat = SparseVLM(version="2", heads=4).score(replace(view, evidence=still, text=text))
    torch.testing.assert_close(flat, SparseVLM().score(view))


def test_version_2_trusts_the_heads_that_look_at_the_image() -> None:
    attention = torch.stack([torch.tensor([[0.5, 0.1]]), torch.tensor([[0.1, 0.2]]), torch.tensor([[0.0, 0.9]])])[None]
    raters, even = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1, 2)
    torch.testing.assert_close(rate_corrected(attention, raters, even, heads=1), torch.tensor([[0.0, 0.9]]))
    torch.testing.assert_close(rate_corrected(attention, raters, even, heads=2), torch.tensor([[0.25, 0.5]]))
    halved = torch.tensor([[[0.5, 1.0]]])
    torch.testing.assert_close(rate_corrected(attention, raters, halved, heads=1), torch.tensor([[1.0, 0.1]]))


def test_the_clamp_tames_a_negative_decay() -> None:
    view = random_view(images=1)
    far = replace(view, evidence={**view.evidence, ROTARY: angles(torch.tensor([[*range(-395, -336), 64]]))})
    assert (SparseVLM(version="2").score(far) > 0).all()
    assert (SparseVLM(version="2", clamp=None).score(far) < 0).any()


def test_positions_follow_the_version() -> None:
    several = replace(SHAPE, multi_axis_positions=True)
    assert SparseVLM().position_rule == "renumber"
    assert SparseVLM(positions="keep").position_rule == "keep"
    assert SparseVLM(version="2").position_rule == "keep"
    assert SparseVLM().needs(SHAPE) == {EMBEDDINGS, TEXT}
    assert SparseVLM(version="2").needs(SHAPE) == {EMBEDDINGS, TEXT, ROTARY}
    for keeping in (SparseVLM(positions="keep"), SparseVLM(version="2")):
        assert keeping.needs(several)
    with pytest.raises(Unsupported, match="use"):
        SparseVLM().needs(several)


@pytest.mark.parametrize("options", [{"version": 1.5}, {"schedule": "fari"}, {"positions": "renumber"}, {"clamp": 0}])
def test_unusable_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="use"):
        SparseVLM(**options)  # type: ignore[arg-type]  # the mistake under test


@pytest.mark.parametrize("heads", [0, 5])
def test_heads_must_exist(heads: int) -> None:
    with pytest.raises(UserError, match="use 1 to 4"):
        SparseVLM(version="2", heads=heads).needs(SHAPE)

"""Photographs that benchmarks share under different bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vtpbench.harness.host.images import image_name, perceptual_hash
from vtpbench.report.stats.same_pictures import ALIKE, same_pictures


def photograph(seed: int) -> Image.Image:
    """Smooth structure at several sizes, as photographs have, and grain."""
    generator = np.random.default_rng(seed)
    whole = np.zeros((240, 320))
    for size in (4, 8, 16, 64):
        rough = Image.fromarray(generator.normal(0, 1, (size, size)).astype(np.float32))
        whole += np.asarray(rough.resize((320, 240), Image.Resampling.BICUBIC)) / np.sqrt(size)
    grain = generator.normal(0, 0.02, whole.shape)
    grey = (whole - whole.min()) / np.ptp(whole) + grain
    return Image.fromarray((255 * grey.clip(0, 1)).astype(np.uint8)).filter(ImageFilter.SMOOTH).convert("RGB")


def stored_anew(image: Image.Image, scale: float = 0.7, quality: int = 75) -> Image.Image:
    file = io.BytesIO()
    image.resize((round(scale * image.width), round(scale * image.height))).save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def hashes(images: list[Image.Image]) -> dict[str, str]:
    return {image_name(image): perceptual_hash(image) for image in images}


def differing(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_a_photograph_that_is_scaled_and_compressed_keeps_its_hash_but_for_few_bits() -> None:
    photographs = [photograph(seed) for seed in range(40)]
    own = [perceptual_hash(image) for image in photographs]
    anew = [perceptual_hash(stored_anew(image)) for image in photographs]
    assert np.mean([differing(a, b) <= ALIKE for a, b in zip(own, anew, strict=True)]) >= 0.95
    assert min(differing(a, b) for i, a in enumerate(own) for b in own[:i]) > 3 * ALIKE
    assert len(perceptual_hash(Image.new("1", (1, 1)))) == 16


def test_shared_photographs_get_one_name_and_others_keep_theirs() -> None:
    photographs = [photograph(seed) for seed in range(30)]
    one, other = hashes(photographs[:20]), hashes([stored_anew(image, 0.8, 85) for image in photographs[10:]])
    assert not one.keys() & other.keys()
    same = same_pictures([one, other])
    pairs = list(zip(list(one)[10:], list(other)[:10], strict=True))
    assert sum(same.get(a, a) == same.get(b, b) for a, b in pairs) >= 9
    known = [name for a, b in pairs for name in (a, b)]
    assert not [name for name in same if name not in known]
    assert same_pictures([other, one]) == same


@pytest.mark.parametrize("bits", range(6))
def test_hashes_that_differ_in_few_bits_are_found_wherever_these_are(bits: int) -> None:
    generator = np.random.default_rng(bits)
    one, other = {}, {}
    for i in range(200):
        look = int(generator.integers(0, 2**64, dtype=np.uint64))
        flipped = generator.choice(64, bits, replace=False)
        one[f"a{i}"], other[f"b{i}"] = f"{look:016x}", f"{look ^ sum(1 << int(bit) for bit in flipped):016x}"
    same = same_pictures([one, other])
    assert same == ({f"b{i}": f"a{i}" for i in range(200)} if bits <= ALIKE else {})


def test_pictures_that_look_like_several_are_not_taken_for_any_and_a_chain_has_one_name() -> None:
    assert same_pictures([{"a": "0" * 16, "b": f"{1:016x}"}, {"c": "0" * 16}]) == {}
    assert same_pictures([{"a": "f" * 16}, {"c": "f" * 16}, {"b": "f" * 16}]) == {"b": "a", "c": "a"}
    assert same_pictures([{"a": "f" * 16}, {"a": "f" * 16}]) == {}
    assert same_pictures([{"a": "", "b": "f" * 16}, {"c": ""}, {}]) == {}

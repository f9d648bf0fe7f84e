from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtpbench.harness.host.files import StorageError
from vtpbench.harness.host.images import image_name
from vtpbench.harness.models.tiny import tiny_llava, tiny_llava_next, tiny_llava_onevision, tiny_qwen2_5_vl
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.store import picture_path
from vtpbench.harness.run.pictures import LONGEST, PictureFolder
from vtpbench.pruners.base import Grid


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def add(picture_folder: PictureFolder, image: Image.Image, family: Any = None, grid: Grid | None = None):
    return picture_folder.add(family or tiny_llava(), image_name(image), image, grid or Grid(1, 4, 4))


@pytest.mark.parametrize(("wanted", "n", "chosen"), [(0, 9, []), (4, 0, []), (4, 3, [0, 1, 2]), (4, 10, [0, 2, 5, 7])])
def test_questions_are_chosen_at_equal_distances(wanted: int, n: int, chosen: list[int]) -> None:
    assert sorted(PictureFolder(Path(), wanted).chosen(n)) == chosen


FAMILIES = {
    "pad": tiny_llava,
    "fixed672": tiny_llava_next,
    "native": lambda: tiny_llava_next(preprocessing="native"),
    "pooled": lambda: tiny_llava_onevision(most=1),
    "qwen": tiny_qwen2_5_vl,
}


@pytest.mark.parametrize("size", [(640, 320), (96, 200)])
@pytest.mark.parametrize("name", FAMILIES)
def test_tiles_say_where_every_token_lies(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    family: Any = FAMILIES[name]()
    image = picture(*size)
    (encoded,) = Pipeline(family).encode([image])
    places = add(PictureFolder(tmp_path, 1), image, family, encoded.grid)
    canvas, boxes = family.boxes(image, encoded.grid)
    small = Image.open(tmp_path / "pictures" / f"{places.picture}.jpg")
    assert small.format == "JPEG"
    assert max(small.size) <= LONGEST * max(canvas.size) / max(size) + 1
    assert places.picture == f"{image_name(image)}-{small.width}x{small.height}"
    found = [
        (x[column], y[row], x[column + 1], y[row + 1])
        for x, y in places.tiles
        for row in range(len(y) - 1)
        for column in range(len(x) - 1)
    ]
    assert np.allclose(found, boxes * (*small.size, *small.size), atol=0.06)


def test_a_small_image_stays_as_it_is_and_each_is_written_once(tmp_path: Path) -> None:
    picture_folder = PictureFolder(tmp_path, 1)
    first = add(picture_folder, picture(40, 30))
    path = picture_path(tmp_path, first.picture)
    assert path is not None
    assert Image.open(path).size == (40, 30)
    path.write_bytes(b"as it was")
    assert add(picture_folder, picture(40, 30), grid=Grid(1, 2, 2)).picture == first.picture
    assert path.read_bytes() == b"as it was"
    assert add(picture_folder, picture(40, 30, seed=1)).picture != first.picture


def test_many_may_write_the_same_picture_at_once(tmp_path: Path) -> None:
    family, images = tiny_llava(), [picture(200, 150, seed) for seed in range(4)]
    with ThreadPoolExecutor(8) as threads:
        token_places = list(threads.map(lambda n: add(PictureFolder(tmp_path, 1), images[n % 4], family), range(32)))
    assert len({places.picture for places in token_places}) == len(list((tmp_path / "pictures").iterdir())) == 4


def test_a_disk_that_refuses_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("in the way")
    with pytest.raises(StorageError, match="pictures"):
        add(PictureFolder(tmp_path, 1), picture(40, 30))

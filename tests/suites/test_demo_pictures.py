from pathlib import Path

from PIL import Image

from vtpbench.suites.demo.pictures import write_pictures
from vtpbench.suites.demo.scenes import render, sample_scene


def test_equal_arguments_give_equal_files(tmp_path: Path) -> None:
    write_pictures(tmp_path / "one", 2, seed=5)
    write_pictures(tmp_path / "two", 2, seed=5)
    files = sorted((tmp_path / "one").iterdir())
    assert [file.name for file in files] == ["00000.png", "00001.png"]
    assert [file.read_bytes() for file in files] == [(tmp_path / "two" / file.name).read_bytes() for file in files]
    assert Image.open(files[1]).tobytes() == render(sample_scene((0, 5, 1)))[0].tobytes()

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from vtpbench.harness.cli.main import app
from vtpbench.harness.efficiency.gpus import gpu_table
from vtpbench.harness.models.load import Described
from vtpbench.harness.planning.inspection import describe_anywhere
from vtpbench.harness.planning.outlook import show_plan
from vtpbench.harness.run.batch_size import SHARE, SIZES, fitting_batch_size, gpu_bytes, peak_bytes
from vtpbench.harness.run.job import Inspection, Job, RunOptions, make_job
from vtpbench.harness.run.loop import run
from vtpbench.harness.suite.suite import load
from vtpbench.pruners.errors import UserError

MODELS = {name: load(name).models[0] for name in ("llava15", "llavanext", "qwen25vl", "qwen3vl")}
scripted = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "scripted_run.py")))
DEMO = "matrix={pruners: [random], budgets: [32], benchmarks: [demo-exist]}"


def described(name: str) -> Described:
    return describe_anywhere(MODELS[name])


def job(tmp_path: Path, memory: float | None, *settings: str, only: tuple[str, ...] = ()) -> Job:
    options = RunOptions(tmp_path, only, [DEMO, *settings])
    return make_job("demo", options, print, Inspection(gpu_bytes=lambda: memory))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("gpu", [gpu.name for gpu in gpu_table().gpus])
def test_the_largest_size_that_fits_is_taken(name: str, gpu: str) -> None:
    model, memory = described(name), next(each.gb for each in gpu_table().gpus if each.name == gpu) * 1e9
    size = fitting_batch_size([model], memory, graphs=True)
    assert peak_bytes(model, size, graphs=True) <= SHARE * memory or size == 1
    larger = [each for each in SIZES if each > size]
    assert not larger or peak_bytes(model, min(larger), graphs=True) > SHARE * memory


def test_a_suite_has_one_size_for_all_its_models_and_a_model_without_room_is_asked_alone() -> None:
    small, large, h100 = described("llava15"), described("llavanext"), 80e9
    assert fitting_batch_size([small], h100, graphs=True) > fitting_batch_size([large], h100, graphs=True)
    assert fitting_batch_size([small, large], h100, graphs=True) == fitting_batch_size([large], h100, graphs=True)
    assert fitting_batch_size([small], 1e9, graphs=True) == 1


def test_eager_attention_and_graphs_take_memory() -> None:
    model = described("llava15")
    eager = Described(model.info.model_copy(update={"attention": "eager"}), model.shape, model.folder)
    assert peak_bytes(eager, 16, graphs=False) > peak_bytes(model, 16, graphs=False)
    assert peak_bytes(model, 16, graphs=True) > peak_bytes(model, 16, graphs=False)


def test_cells_have_the_size_that_was_found_whichever_are_chosen(tmp_path: Path) -> None:
    found = job(tmp_path, 141e9, "batch_size=auto")
    assert {cell.batch_size for cell in found.cells} == {found.suite.questions_together} == {128}
    chosen = job(tmp_path, 141e9, "batch_size=auto", only=("pruner=vanilla",))
    assert {cell.id for cell in chosen.cells} < {cell.id for cell in found.cells}
    named = job(tmp_path, 141e9, "batch_size=128")
    assert [cell.id for cell in named.cells] == [cell.id for cell in found.cells]


def test_a_number_stays_and_a_processor_has_its_own(tmp_path: Path) -> None:
    assert {cell.batch_size for cell in job(tmp_path, 141e9, "batch_size=4").cells} == {4}
    assert {cell.batch_size for cell in job(tmp_path, None, "batch_size=auto").cells} == {8}


def test_memory_is_that_of_the_data_sheet_where_the_kind_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_bytes(torch.device("cpu")) is None
    for name, found in (("NVIDIA H100 80GB HBM3", 80e9), ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10_468_982_784.0)):
        properties = SimpleNamespace(name=name, total_memory=10_468_982_784)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, properties=properties: properties)
        assert gpu_bytes(torch.device("cuda:0")) == found


@pytest.mark.parametrize(("size", "why"), [("0", "greater than"), ("many", "a number of questions, or auto"), ("2.5", "integer")])
def test_no_other_word_and_no_other_number_is_a_size(size: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"batch_size.*{why}"):
        job(tmp_path, None, f"batch_size={size}")


def test_workers_elsewhere_need_a_number(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU to fit the size to")
    ran = CliRunner().invoke(app, ["run", "demo", "--batch-size", "auto", "--gpus", "2", "--out", str(tmp_path)])
    assert ran.exit_code == 2
    assert "leaves its batch size open, and this machine has no GPU to fit it to: name --batch-size N" in ran.output
    assert not list(tmp_path.iterdir())


def test_a_plan_elsewhere_goes_by_what_was_measured(tmp_path: Path) -> None:
    def shown(*settings: str, gpu: str | None = None) -> str:
        return show_plan("demo", RunOptions(tmp_path, (), ["name=toy", "dtype=float16", DEMO, *settings]), print, gpu)

    assert "batches of 8 questions, as on a processor; --gpu KIND says" in shown("batch_size=auto")
    run([scripted.make_cell()], scripted.make_setting(tmp_path))
    assert f"batches of {scripted.BATCH} questions, as in {tmp_path / 'toy'}; --gpu" in shown("batch_size=auto")
    assert "batches on one NVIDIA H200 SXM: 128 questions, as many as leave" in shown("batch_size=auto", gpu="h200")
    assert "batches of" not in shown("batch_size=16").partition("assumed")[0]

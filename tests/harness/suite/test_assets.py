from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import perf_counter

import datasets.config
import huggingface_hub.constants
import pytest

from vtpbench.harness.host import hub
from vtpbench.harness.models import load as load_checkpoint
from vtpbench.harness.suite import assets as datareport
from vtpbench.harness.suite.suite import Suite, load
from vtpbench.pruners.errors import UserError

CONFIGS = Path(load_checkpoint.__file__).parent / "configs"
MODEL = "llava-hf/llava-1.5-7b-hf"
COMMIT = "0" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty Hugging Face caches, and no network."""
    folder = tmp_path / "hf"
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    return folder


def make_suite(folder: Path, benchmarks: str = "[gqa, mmbench]", model: str = MODEL) -> Suite:
    file = folder / "s.yaml"
    file.write_text(f"models: [{model}]\nmatrix: {{pruners: [random], budgets: [4], benchmarks: {benchmarks}}}\n")
    return load(file)


def put_dataset(cache: Path, name: str, config: str, size: int = 1000) -> Path:
    copy = cache / "datasets" / name / config / "0.0.0" / COMMIT
    copy.mkdir(parents=True)
    (copy / "dataset_info.json").write_text("{}")
    (copy / "data.arrow").write_bytes(bytes(size - 2))
    return copy


def put_model(cache: Path, *files: str) -> Path:
    folder = cache / "hub" / "models--llava-hf--llava-1.5-7b-hf"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for name in files:
        (snapshot / name).write_bytes(bytes(100))
    return snapshot


def test_every_configuration_and_the_model_are_named_with_their_place(cache: Path, tmp_path: Path) -> None:
    assets = datareport.examine(make_suite(tmp_path))
    assert [(a.kind, a.used_by, a.name, a.config, a.split, a.state) for a in assets] == [
        ("dataset", "gqa", "lmms-lab-encoder/GQA", "testdev_balanced_instructions", "testdev", "missing"),
        ("dataset", "gqa", "lmms-lab-encoder/GQA", "testdev_balanced_images", "testdev", "missing"),
        ("dataset", "mmbench", "lmms-lab-encoder/MMBench", "en", "dev", "missing"),
        ("model", "llava-1.5-7b-hf", MODEL, None, "", "missing"),
    ]
    assert [a.place for a in assets[1:]] == [
        str(cache / "datasets/lmms-lab-encoder___gqa"),
        str(cache / "datasets/lmms-lab-encoder___mm_bench"),
        str(cache / "hub/models--llava-hf--llava-1.5-7b-hf"),
    ]
    assert {a.size_bytes for a in assets} == {None}


def test_what_is_cached_has_its_size_and_what_is_broken_counts_as_missing(cache: Path, tmp_path: Path) -> None:
    gqa = put_dataset(cache, "lmms-lab-encoder___gqa", "testdev_balanced_images", size=5000)
    broken = put_dataset(cache, "lmms-lab-encoder___mm_bench", "en")
    (broken / "dataset_info.json").unlink()
    put_model(cache, "config.json")  # the weights did not arrive
    suite = make_suite(tmp_path)
    states = [asset.state for asset in datareport.examine(suite)]
    assert states == ["missing", "cached", "missing", "missing"]
    (cache / "hub/models--llava-hf--llava-1.5-7b-hf/snapshots" / COMMIT / "model.safetensors").write_bytes(bytes(900))
    images, model = (datareport.examine(suite)[i] for i in (1, 3))
    assert (images.state, images.size_bytes, images.place, images.command) == ("cached", 5000, str(gqa), "")
    assert (model.state, model.size_bytes) == ("cached", 1000)


def test_advice_for_a_machine_without_network_is_complete(cache: Path, tmp_path: Path) -> None:
    advice = "\n".join(datareport.advice(datareport.examine(make_suite(tmp_path, "[mmbench]"))))
    assert "2 missing, and HF_HUB_OFFLINE is set" in advice
    assert "python -c \"import datasets; datasets.load_dataset('lmms-lab-encoder/MMBench', 'en')\"" in advice
    assert f"hf download {MODEL}" in advice
    assert str(cache / "datasets/lmms-lab-encoder___mm_bench") in advice
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        datareport.fetch(make_suite(tmp_path, "[mmbench]"))
    put_dataset(cache, "lmms-lab-encoder___mm_bench", "en")
    put_model(cache, "config.json", "model.safetensors")
    assert datareport.advice(datareport.examine(make_suite(tmp_path, "[mmbench]"))) == ["everything is here"]


def test_local_data_and_checkpoints_are_found_where_the_suite_names_them(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "pope").mkdir()
    (tmp_path / "pope/test.parquet").write_bytes(bytes(300))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_bytes(bytes(20))
    suite = make_suite(tmp_path, "[{pope: {overrides: {dataset_path: ./pope}}}]", "./model")
    data, model = datareport.examine(suite)
    assert (data.state, data.size_bytes, data.place) == ("local", 300, str(tmp_path / "pope"))
    assert (model.state, model.size_bytes, model.name) == ("local", 20, "./model")
    files = "{dataset_path: parquet, dataset_kwargs: {data_files: {test: gone.parquet}}}"
    gone, _ = datareport.examine(make_suite(tmp_path, f"[{{pope: {{overrides: {files}}}}}]", "./model"))
    assert gone.state == "missing"
    assert "gone.parquet, which does not exist" in gone.place
    assert datareport.advice([gone]) == ["1 missing: put the files where the suite names them"]


TOWER = "openai/clip-vit-large-patch14-336"


@pytest.mark.parametrize("shipped", [False, True])
def test_the_vision_tower_of_an_original_checkpoint_is_listed_once_the_checkpoint_is_here(
    cache: Path, tmp_path: Path, shipped: bool
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.parquet").touch()
    suite = make_suite(tmp_path, "[{pope: {overrides: {dataset_path: ./data}}}]")
    assert len(datareport.examine(suite)) == 2, "the checkpoint is not here, so nobody knows what it names"
    snapshot = put_model(cache, "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps({"mm_vision_tower": "tower" if shipped else TOWER}))
    if shipped:
        (snapshot / "tower").mkdir()
        assert datareport.advice(datareport.examine(suite)) == ["everything is here"]
        return
    _, own, tower = datareport.examine(suite)
    assert (own.state, tower.state, tower.name, tower.used_by) == ("cached", "missing", TOWER, "llava-1.5-7b-hf (vision tower)")
    assert f"  hf download {TOWER}" in datareport.advice([own, tower])
    with pytest.raises(UserError, match=f"{TOWER} is neither a folder nor in the Hugging Face cache"):
        datareport.fetch(suite)


def test_the_vision_tower_is_fetched_with_the_checkpoint_that_names_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bring(path: str, revision: str | None, label: str) -> Path:
        snapshot = put_model(cache, "model.safetensors") if path == MODEL else tmp_path
        (snapshot / "config.json").write_text(json.dumps({"mm_vision_tower": TOWER}))
        return snapshot

    put_dataset(cache, "lmms-lab-encoder___mme", "default")
    monkeypatch.setattr(hub, "offline_reason", lambda: "no network here")
    monkeypatch.setattr(load_checkpoint, "find_checkpoint", bring)
    said: list[str] = []
    datareport.fetch(make_suite(tmp_path, "[mme]"), said.append)
    assert said == [f"fetching the model {MODEL}", f"fetching the model {TOWER}"]


@pytest.mark.parametrize(
    ("pruners", "listed"),
    [("[cdpruner]", True), ("[{label: both, sequence: [trim: {share: 0.5}, fastv: {}]}]", True), ("[visionzip, fastv]", False)],
)
def test_the_text_tower_is_listed_for_pruners_that_read_with_it(cache: Path, tmp_path: Path, pruners: str, listed: bool) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.parquet").touch()
    file = tmp_path / "s.yaml"
    data = "benchmarks: [{pope: {overrides: {dataset_path: ./data}}}]"
    file.write_text(f"models: [{MODEL}]\nmatrix: {{pruners: {pruners}, budgets: [64], {data}}}\n")
    snapshot = put_model(cache, "model.safetensors")
    (snapshot / "config.json").write_text((CONFIGS / "llava-1.5-7b.json").read_text())
    found = [(asset.used_by, asset.name, asset.state) for asset in datareport.examine(load(file))[2:]]
    assert found == ([("llava-1.5-7b-hf (text tower)", TOWER, "missing")] if listed else [])


def test_models_of_random_weights_need_nothing(cache: Path) -> None:
    suite = load("efficiency")
    assert suite.models[0].dummy == "llava-1.5-7b"
    assert datareport.examine(suite) == []
    datareport.fetch(suite)


def test_what_cannot_be_a_hub_id_is_a_line(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model 'org/a--b' is neither a checkpoint folder nor a hub id such as"):
        datareport.examine(make_suite(tmp_path, "[gqa]", "org/a--b"))


def test_rows_fit_a_table(cache: Path, tmp_path: Path) -> None:
    put_dataset(cache, "lmms-lab-encoder___gqa", "testdev_balanced_images", size=2_500_000)
    shown = datareport.rows(datareport.examine(make_suite(tmp_path, "[gqa]")))
    assert [row["size"] for row in shown] == ["unknown", "2.5 MB", "unknown"]
    assert shown[1]["name"] == "lmms-lab-encoder/GQA (testdev_balanced_images)"
    assert len({tuple(row) for row in shown}) == 1
    json.dumps(shown)


def test_a_hub_that_does_not_answer_costs_two_seconds(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    suite = make_suite(tmp_path, "[gqa, mme, pope, vqav2, seed]")
    with socket.socket() as silent:  # takes connections, never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = perf_counter()
        assets = datareport.examine(suite)
        assert "cannot be reached" in datareport.advice(assets)[0]
        assert perf_counter() - start < hub.TIMEOUT_S + 2


class SizedHub(BaseHTTPRequestHandler):
    """States the sizes of MMBench and of the model; knows nothing else."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def do_GET(self) -> None:
        card = {"dataset_info": [{"config_name": "cn", "dataset_size": 1}, {"config_name": "en", "dataset_size": 77_000_000}]}
        files = {"model-1.safetensors": 14_000_000_000, "pytorch_model.bin": 9, "config.json": 500, "README.md": 9}
        siblings = [{"rfilename": name, "size": size} for name, size in files.items()]
        known = {
            "/api/datasets/lmms-lab-encoder/MMBench": {"id": "x", "sha": "abc", "cardData": card},
            f"/api/models/{MODEL}": {"id": MODEL, "sha": "abc", "siblings": siblings},
        }
        body = next((value for path, value in known.items() if self.path.startswith(path)), None)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(body or {}).encode())

    def log_message(self, *args: object) -> None: ...


def test_the_hub_says_how_large_what_is_missing_is(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with HTTPServer(("127.0.0.1", 0), SizedHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        mmbench, mme, model = datareport.examine(make_suite(tmp_path, "[mmbench, mme]"))
        assert mmbench.size_bytes == 77_000_000
        assert mme.size_bytes is None, "the hub does not know it"
        assert model.size_bytes == 14_000_000_500, "one form of the weights, and the small files"
        assert datareport.advice([mmbench, mme, model]) == ["3 missing: add --fetch to download them"]
        server.shutdown()


def test_fetching_brings_what_is_missing_only(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_dataset(cache, "lmms-lab-encoder___gqa", "testdev_balanced_images")
    put_dataset(cache, "lmms-lab-encoder___mme", "default")
    put_model(cache, "config.json", "model.safetensors")
    fetched, said = [], []
    monkeypatch.setattr(hub, "offline_reason", lambda: None)
    monkeypatch.setattr(hub, "download", lambda *what: fetched.append(what))
    datareport.fetch(make_suite(tmp_path, "[gqa, mme]"), said.append)
    assert fetched == [("lmms-lab-encoder/GQA", "testdev_balanced_instructions")]
    assert said == ["fetching the dataset lmms-lab-encoder/GQA for gqa"]

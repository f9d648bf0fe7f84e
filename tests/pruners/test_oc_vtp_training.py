from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open

from vtpbench.pruners.base import Grid
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.oc_vtp.checkpoint import load
from vtpbench.pruners.oc_vtp.config import TrainConfig
from vtpbench.pruners.oc_vtp.features import FeatureMeta, FeatureStore, ImageFeatures, extract
from vtpbench.pruners.oc_vtp.progress import LogRow, read_log
from vtpbench.pruners.oc_vtp.task import TrainingTask
from vtpbench.pruners.oc_vtp.train import BEST, LOG, train

pytestmark = pytest.mark.usefixtures("one_thread")

META = FeatureMeta("tiny", "abc", 2, 24, "squash")
CONFIG = TrainConfig(
    enc_hidden=32, slot_dim=16, agg_ffn=32, decoder_layers=1, decoder_heads=2, decoder_ffn=32,
    slots=(2, 4), prefix=None, batch=8, steps=60, warmup=5, lr=1e-2, validation_images=8, validate_every=20, log_every=1,
)  # fmt: skip


@dataclass
class Clusters:
    """Synthetic images: each token is one of a few fixed vectors, chosen by region, plus a little noise."""

    images: int = 40
    sizes: tuple[int, ...] = (4,)
    meta: FeatureMeta = META
    asked: list[str] = field(default_factory=list)

    def keys(self) -> Sequence[str]:
        return [f"{i:03d}" for i in range(self.images)]

    def features(self, keys: Sequence[str]) -> Iterator[ImageFeatures]:
        parts = 2 * torch.randn(6, 24, generator=torch.Generator().manual_seed(0))
        for key in keys:
            self.asked.append(key)
            random = torch.Generator().manual_seed(int(key))
            side = self.sizes[int(key) % len(self.sizes)]
            chosen = torch.randint(6, (4,), generator=random).repeat_interleave(side)[: side * 4]
            tokens = parts[chosen] + 0.1 * torch.randn(side * 4, 24, generator=random)
            yield ImageFeatures(key, Grid(1, side, 4), tokens)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def store(features: Path) -> FeatureStore:
    return extract(Clusters(), features)


def test_loss_falls(store: FeatureStore, tmp_path: Path) -> None:
    seen: list[LogRow] = []
    result = train(CONFIG, store, tmp_path, on_row=seen.append)
    first, last = seen[0], seen[-1]
    assert first.val_mse is not None
    assert last.val_mse is not None
    assert last.val_mse < 0.6 * first.val_mse
    assert read_log(result.log) == seen
    assert [row.step for row in seen] == list(range(61))
    assert {row.slots for row in seen[1:]} == {2, 4}
    header = result.header
    assert (header.model, header.tower, header.layer, header.tokens, header.slots) == ("tiny", "abc", 2, 16, (2, 4))
    assert (header.images, header.steps, header.data) == (32, 60, store.fingerprint)
    assert header.validation["mse"] == min(row.val_mse for row in seen if row.val_mse is not None)
    with safe_open(result.best, "pt") as file:
        assert "decode.mask_token" in file.keys()  # noqa: SIM118 - not a mapping, has only keys()
    assert load(result.best).network().aggregat.iterations == 3


EMA = CONFIG.model_copy(update={"ema": 0.9, "steps": 30, "validate_every": 10})


def start(features: Path, folder: Path, config: TrainConfig, role: str, number: int) -> subprocess.Popen[bytes]:
    """Train in a process of its own; see the script."""
    arguments = (config.model_dump_json(), features, folder, role, number)
    return subprocess.Popen([sys.executable, Path(__file__).with_name("training_process.py"), *map(str, arguments)])


def test_killed_run_resumes_with_the_same_curve(features: Path, store: FeatureStore, tmp_path: Path) -> None:
    assert start(features, tmp_path / "killed", EMA, "until", 17).wait(timeout=120) == -signal.SIGKILL
    assert read_log(tmp_path / "killed" / LOG)[-1].step == 17
    torch.manual_seed(99)  # no global state may matter
    resumed: list[LogRow] = []
    train(EMA, store, tmp_path / "killed", on_row=resumed.append)
    train(EMA, store, tmp_path / "whole")
    assert resumed[0].step == 11
    assert (tmp_path / "killed" / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()
    assert (tmp_path / "killed" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


def test_two_processes_take_the_steps_of_one(features: Path, store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    processes = [start(features, tmp_path / "two", CONFIG, "rank", rank) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    train(CONFIG, store, tmp_path / "one")
    two, one = read_log(tmp_path / "two" / LOG), read_log(tmp_path / "one" / LOG)
    assert [(row.step, row.slots) for row in two] == [(row.step, row.slots) for row in one]
    begin = [(row.loss, row.grad_norm) for row in two[1:11]], [(row.loss, row.grad_norm) for row in one[1:11]]
    for (loss, norm), (loss_of_one, norm_of_one) in zip(*begin, strict=True):  # dropout differs: later steps drift apart
        assert loss == pytest.approx(loss_of_one, rel=0.01)
        assert norm == pytest.approx(norm_of_one, rel=0.05)
    assert two[-1].val_mse == pytest.approx(one[-1].val_mse, rel=0.1)


def test_standardised_run_starts_as_clustering(store: FeatureStore, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"start": "clustering", "standardise": True, "steps": 40})
    seen: list[LogRow] = []
    result = train(config, store, tmp_path, on_row=seen.append)
    errors = [row.val_mse for row in seen if row.val_mse is not None]
    assert errors[-1] < 0.8 * errors[0]
    assert errors[-1] < 1  # better than each channel's mean
    with safe_open(result.best, "pt") as file:
        tokens = store.batch(range(len(store))).features.flatten(0, 1)
        torch.testing.assert_close(file.get_tensor("decode.deviation"), tokens.std(0), rtol=0.1, atol=0)


def test_finished_run_is_not_repeated(store: FeatureStore, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 4})
    first = train(config, store, tmp_path)
    again: list[LogRow] = []
    assert train(config, store, tmp_path, on_row=again.append) == first
    assert not again


def test_other_options_do_not_resume(store: FeatureStore, tmp_path: Path) -> None:
    train(CONFIG.model_copy(update={"steps": 2}), store, tmp_path)
    with pytest.raises(UserError, match="other options"):
        train(CONFIG.model_copy(update={"steps": 3}), store, tmp_path)


def test_early_stop(store: FeatureStore, tmp_path: Path) -> None:
    """The first step moves the weights by 10 each: nothing after it beats the first weights, kept in the result."""
    config = CONFIG.model_copy(update={"lr": 10.0, "warmup": 0, "patience": 3, "validate_every": 1})
    result = train(config, store, tmp_path)
    assert (result.step, result.header.step) == (3, 0)


@pytest.mark.parametrize("loss", ["aw-paper", "mse"])
def test_mixed_token_counts(tmp_path: Path, loss: Any) -> None:
    mixed = extract(Clusters(sizes=(2, 3, 5)), tmp_path / "features")
    assert mixed.tokens is None
    result = train(CONFIG.model_copy(update={"loss": loss, "steps": 30}), mixed, tmp_path / "run")
    rows = [row for row in read_log(result.log) if row.val_mse is not None]
    assert rows[-1].val_mse < 0.8 * rows[0].val_mse  # type: ignore[operator]  # filtered above
    assert result.header.tokens is None


def test_too_few_images(tmp_path: Path) -> None:
    few = extract(Clusters(images=12), tmp_path / "features")
    with pytest.raises(UserError, match="12 images are too few"):
        train(CONFIG, few, tmp_path / "run")


def test_every_training_image_is_seen_once_an_epoch(store: FeatureStore) -> None:
    task = TrainingTask(CONFIG, store)
    epoch = [i for step in range(4, 8) for i in task.images(step)]
    assert sorted(epoch + task.validation) == list(range(40))
    assert epoch != [i for step in range(4) for i in task.images(step)]


def test_learning_rate() -> None:
    config = TrainConfig(steps=300, warmup=40)
    assert config.lr_at(0) == pytest.approx(1e-6)
    assert config.lr_at(20) == pytest.approx(5.005e-4)
    assert config.lr_at(150) == pytest.approx(5e-4, rel=1e-3)
    assert config.lr_at(300) == pytest.approx(1e-8)


def test_slot_counts_scale_with_the_tokens() -> None:
    config = TrainConfig()
    assert config.slot_counts(576) == (32, 64, 128, 192)
    assert config.slot_counts(144) == (8, 16, 32, 48)
    assert config.slot_counts(2880) == (160, 320, 640, 960)


def test_unknown_option() -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        TrainConfig.model_validate({"learning_rate": 1})


def test_features_come_back(tmp_path: Path) -> None:
    source = Clusters(images=5, sizes=(2, 3))
    found = extract(source, tmp_path, shard_rows=20)
    assert len(list(tmp_path.glob("*.f16"))) == 3
    batch = found.batch([1, 0])
    images = {image.key: image.tokens for image in source.features(found.keys)}
    torch.testing.assert_close(batch.features[0], images["001"].half().float())
    torch.testing.assert_close(batch.features[1, :8], images["000"].half().float())
    assert batch.present.sum(1).tolist() == [12, 8]
    assert batch.places[0, -1].tolist() == [2, 3]
    assert not batch.features[1, 8:].any()


def test_extraction_resumes(tmp_path: Path) -> None:
    whole = extract(Clusters(images=9), tmp_path / "whole", shard_rows=64)
    extract(Clusters(images=5), tmp_path / "cut", shard_rows=64)
    with (tmp_path / "cut" / "shard-00001.f16").open("ab") as shard, (tmp_path / "cut" / "index.jsonl").open("ab") as index:
        shard.write(b"half an image")
        index.write(b'{"key": "00')
    source, progress = Clusters(images=9), []
    resumed = extract(source, tmp_path / "cut", on_image=lambda done, total: progress.append((done, total)), shard_rows=64)
    assert source.asked == ["005", "006", "007", "008"]
    assert progress == [(done, 9) for done in range(5, 10)]
    assert resumed.fingerprint == whole.fingerprint
    assert torch.equal(resumed.batch(range(9)).features, whole.batch(range(9)).features)


def test_excluded_images_are_left_out(tmp_path: Path) -> None:
    extract(Clusters(images=4), tmp_path)
    store = extract(Clusters(images=4), tmp_path, exclude={"001", "003"})
    assert store.keys == ("000", "002")
    with pytest.raises(UserError, match="no image is left"):
        extract(Clusters(images=1), tmp_path, exclude={"000"})


def test_features_of_another_tower_do_not_mix(tmp_path: Path) -> None:
    extract(Clusters(images=2), tmp_path)
    with pytest.raises(UserError, match="another origin"):
        extract(Clusters(images=3, meta=replace(META, tower="xyz")), tmp_path)


def test_features_beyond_float16(tmp_path: Path) -> None:
    class Huge(Clusters):
        def features(self, keys: Sequence[str]) -> Iterator[ImageFeatures]:
            yield ImageFeatures(keys[0], Grid(1, 1, 1), torch.full((1, 24), 1e6))

    with pytest.raises(UserError, match="float16"):
        extract(Huge(images=1), tmp_path)


def test_folder_without_features(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder of features"):
        FeatureStore(tmp_path)

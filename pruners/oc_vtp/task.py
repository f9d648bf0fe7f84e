"""What a training run of OC-VTP is: options and features, and everything random that follows from them and a step number."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import torch

from vtpbench.pruners.errors import UserError
from vtpbench.pruners.oc_vtp.checkpoint import Header
from vtpbench.pruners.oc_vtp.config import TrainConfig
from vtpbench.pruners.oc_vtp.decoder import Reconstructor
from vtpbench.pruners.oc_vtp.features import FeatureStore
from vtpbench.pruners.oc_vtp.network import start_as_clustering
from vtpbench.pruners.random import private_generator

STANDARD_IMAGES = 256
"""Training images over which the mean and deviation of a channel are taken."""


@dataclass(frozen=True)
class TrainingTask:
    """A training run: options, features, and what follows from the two."""

    config: TrainConfig
    store: FeatureStore

    def __post_init__(self) -> None:
        if len(self.training) < self.config.batch:
            raise UserError(
                f"{len(self.store)} images are too few: {len(self.validation)} are held out and a batch takes "
                f"{self.config.batch}; give more images or lower `validation_images` and `batch`"
            )

    @cached_property
    def identity(self) -> str:
        """Hash of everything that can change a weight."""
        facts = [self.config.model_dump(mode="json"), self.store.fingerprint]
        return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def _order(self) -> list[int]:
        order: list[int] = torch.randperm(len(self.store), generator=private_generator(self.config.seed, "split")).tolist()
        return order

    @property
    def validation(self) -> list[int]:
        """Numbers of the images that are held out, fixed by the seed and the images' names."""
        return self._order[: self.config.validation_images]

    @property
    def training(self) -> list[int]:
        """Numbers of all other images."""
        return self._order[self.config.validation_images :]

    @cached_property
    def slot_counts(self) -> tuple[int, ...]:
        """What each step draws its number of slots from."""
        return self.config.slot_counts(self.store.mean_tokens)

    def images(self, step: int) -> list[int]:
        """Numbers of a step's images: consecutive parts of a new permutation each epoch, the remainder left out."""
        per_epoch = len(self.training) // self.config.batch
        epoch, part = divmod(step, per_epoch)
        order = torch.randperm(len(self.training), generator=private_generator(self.config.seed, "epoch", epoch))
        return [self.training[i] for i in order[part * self.config.batch : (part + 1) * self.config.batch].tolist()]

    def slots(self, step: int) -> int:
        """Draw a step's number of slots."""
        draw = torch.randint(len(self.slot_counts), (), generator=private_generator(self.config.seed, "slots", step))
        return self.slot_counts[int(draw)]

    def model(self) -> Reconstructor:
        """Build the model with its seeded first weights."""
        with seeded(self.config.seed, torch.device("cpu")):
            model = Reconstructor(self.config.dims(self.store.meta.width), self.config.decoder(self.store.tokens))
            if self.config.start == "clustering":
                start_as_clustering(model.aggregat)
        if self.config.standardise:
            batch = self.store.batch(self.training[:STANDARD_IMAGES])
            tokens = batch.features[batch.present]
            model.decode.mean.copy_(tokens.mean(0))
            model.decode.deviation.copy_(tokens.std(0))
        return model

    def header(self, step: int, validation: dict[str, float]) -> Header:
        """Describe the weights after a step."""
        meta = self.store.meta
        return Header(
            model=meta.model,
            tower=meta.tower,
            layer=meta.layer,
            geometry=meta.geometry,
            tokens=self.store.tokens,
            iterations=self.config.iterations,
            slots=self.slot_counts,
            data=self.store.fingerprint,
            images=len(self.training),
            step=step,
            steps=self.config.steps,
            validation=validation,
            config=self.config.model_dump(mode="json"),
            versions={"torch": torch.__version__, "python": platform.python_version()},
        )


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, which dropout and initial weights draw from, and give them back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield

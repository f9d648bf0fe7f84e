"""Training of OC-VTP: rebuild vision tokens from slots; the language model takes no part.

Every random number of a step comes from a generator seeded by (seed, step), so a run that was killed and resumed draws the
same as one that was not, and so do runs of several processes. On a CPU the loss curve of one process is then equal to the
last bit; processes differ among each other in the dropout of their shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vtpbench.pruners.errors import UserError
from vtpbench.pruners.oc_vtp.checkpoint import Header, load, save
from vtpbench.pruners.oc_vtp.config import TrainConfig
from vtpbench.pruners.oc_vtp.decoder import Masking, Reconstructor, draw_masking
from vtpbench.pruners.oc_vtp.features import FeatureBatch, FeatureStore
from vtpbench.pruners.oc_vtp.loss import Criterion, reconstruction_loss
from vtpbench.pruners.oc_vtp.progress import Log, LogRow, load_state, save_state
from vtpbench.pruners.oc_vtp.task import TrainingTask, seeded
from vtpbench.pruners.random import private_generator

STATE, LOG, BEST = "state.pt", "log.csv", "best.safetensors"


@dataclass(frozen=True)
class ProcessRank:
    """Where one process of a run computes; several share each batch, once `torch.distributed` is set up."""

    device: torch.device
    rank: int = 0
    world: int = 1


CPU = ProcessRank(torch.device("cpu"))


@dataclass(frozen=True)
class TrainingResult:
    """What a training left behind, and how good it got."""

    best: Path
    """The weights of the best validation by plain error, decoder included."""
    log: Path
    step: int
    """Steps taken; fewer than asked for after an early stop."""
    header: Header
    """Of the best weights."""


def train(
    config: TrainConfig,
    store: FeatureStore,
    folder: Path,
    place: ProcessRank = CPU,
    on_row: Callable[[LogRow], None] = lambda row: None,
) -> TrainingResult:
    """Train, or go on where an interrupted run in the same folder stopped; `on_row` sees every row of the log.

    Raises
    ------
    UserError : too few images, a folder that holds another run, or a loss that is no longer a number

    """
    task = TrainingTask(config, store)
    if config.batch % place.world:
        raise UserError(f"a batch of {config.batch} cannot be shared equally by {place.world} processes; change `batch`")
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(task, folder, place)
    log = Log(folder / LOG, run.step) if place.rank == 0 else None

    def note(row: LogRow) -> None:
        if log is not None:
            log.add(row)
            on_row(row)

    if run.step == 0:
        note(run.check(LogRow(step=0)))
    while not run.finished:
        row = run.advance()
        if run.step % config.validate_every == 0 or run.step == config.steps:
            note(run.check(row))
            run.save()  # after its row: what a resumed run drops from the log is what it will write again
        elif run.step % config.log_every == 0:
            note(row)
    if place.world > 1:
        torch.distributed.barrier()  # the first process may still be writing the best weights
    return TrainingResult(folder / BEST, folder / LOG, run.step, load(folder / BEST).header)


@torch.no_grad()
def validate(model: Reconstructor, task: TrainingTask, place: ProcessRank = CPU) -> tuple[float, float]:
    """Rebuild the held-out images under fixed masks and slot noise.

    Returns
    -------
    loss, mse : the training loss, and the plain error; means over images and slot counts

    """
    config, images = task.config, task.validation
    criteria: tuple[Criterion, Criterion] = (config.loss, "mse")
    model.eval()
    sums = torch.zeros(2)
    for slots in task.slot_counts:
        for start in range(0, len(images), config.batch):
            part = images[start : start + config.batch]
            draw = _Draw.make(task, part, slots, private_generator(config.seed, "validation", slots, start)).to(place.device)
            rebuilt, attention = draw.run(model, config)
            target = draw.target(model)
            errors = [reconstruction_loss(rebuilt, target, attention, criterion, draw.valid) for criterion in criteria]
            sums += torch.stack(errors).cpu() * len(part)
    model.train()
    loss, mse = (sums / len(images) / len(task.slot_counts)).tolist()
    return loss, mse


@dataclass(frozen=True)
class _Draw:
    """A batch with everything random about it."""

    batch: FeatureBatch
    valid: Tensor | None
    noise: Tensor
    masking: Masking

    @classmethod
    def make(cls, task: TrainingTask, images: list[int], slots: int, generator: torch.Generator) -> _Draw:
        """Read the images, draw slot noise and masks; on the CPU, so that every kind of device gets the same."""
        batch = task.store.batch(images)
        noise = torch.randn(len(images), slots, task.config.slot_dim, generator=generator)
        return cls(batch, batch.valid, noise, draw_masking(batch.present, task.config.prefix, generator))

    def share(self, place: ProcessRank) -> _Draw:
        """Take a process's part of the images."""
        own, batch, masking = slice(place.rank, None, place.world), self.batch, self.masking
        return _Draw(
            FeatureBatch(batch.features[own], batch.present[own], batch.places[own]),
            None if self.valid is None else self.valid[own],
            self.noise[own],
            Masking(masking.order[own], masking.prefix[own]),
        )

    def to(self, device: torch.device) -> _Draw:
        """Give a copy of the draw with all tensors on a device."""
        valid = None if self.valid is None else self.valid.to(device)
        return _Draw(self.batch.to(device), valid, self.noise.to(device), self.masking.to(device))

    def run(self, model: nn.Module, config: TrainConfig) -> tuple[Tensor, Tensor]:
        """Rebuild the batch's features; returns them and the attention."""
        on_gpu = self.noise.device.type == "cuda"
        with torch.autocast(self.noise.device.type, torch.bfloat16, enabled=config.amp and on_gpu):
            out: tuple[Tensor, Tensor] = model(self.batch.features, self.noise, self.masking, self.valid, self.batch.places)
        return out

    def target(self, model: Reconstructor) -> Tensor:
        """State what the batch's features are to be rebuilt as."""
        return model.decode.target(self.batch.features)


class _Run:
    """The moving parts of a training: weights, optimiser, average, and how validation went so far."""

    def __init__(self, task: TrainingTask, folder: Path, place: ProcessRank) -> None:
        config = task.config
        self.task, self.folder, self.place = task, folder, place
        self.model = task.model().to(place.device)
        self.average = _average(self.model, config.ema) if config.ema else None
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.step, self.best, self.worse = 0, math.inf, 0
        if state := load_state(folder / STATE, task.identity):
            self.step, self.best, self.worse = state["step"], state["best"], state["worse"]
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
        self.replica: nn.Module = self.model if place.world == 1 else DistributedDataParallel(self.model)

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or validation has not improved for too long."""
        patience = self.task.config.patience
        return self.step >= self.task.config.steps or (patience is not None and self.worse >= patience)

    def advance(self) -> LogRow:
        """Take one step, together with the other processes."""
        config, place, lr = self.task.config, self.place, self.task.config.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        generator = private_generator(config.seed, "step", self.step, 0)  # 0 was the rank; committed weights were drawn so
        whole = _Draw.make(self.task, self.task.images(self.step), self.task.slots(self.step), generator)
        draw, slots = whole.share(place).to(place.device), whole.noise.shape[1]  # the same draws for any number of processes
        with seeded(generator.initial_seed() + place.rank, place.device):  # for dropout
            rebuilt, attention = draw.run(self.replica, config)
        loss = reconstruction_loss(rebuilt, draw.target(self.model), attention, config.loss, draw.valid)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        value = self._mean(loss.detach()).item()
        if not math.isfinite(value):
            raise UserError(f"the loss is {value} after step {self.step}; lower `lr`, or switch `amp` off")
        return LogRow(self.step, lr, slots, value, norm.item())

    def check(self, row: LogRow) -> LogRow:
        """Validate, keep the weights if they are the best so far, and add the outcome to a row.

        The plain error judges: area weights come from the model's own attention, so that the weighted loss can fall
        because weights shift to tokens that are easy.
        """
        model = self.model if self.average is None else self.average.module
        assert isinstance(model, Reconstructor)
        loss, mse = self._from_first(lambda: validate(model, self.task, self.place))
        self.worse = 0 if mse < self.best else self.worse + 1
        if mse < self.best:
            self.best = mse
            if self.place.rank == 0:
                header = self.task.header(self.step, {"loss": loss, "mse": mse})
                save(self.folder / BEST, model.state_dict(), header, decoder=True)
        return replace(row, val_loss=loss, val_mse=mse)

    def save(self) -> None:
        """Write the state to resume from."""
        if self.place.rank == 0:
            state = {
                "identity": self.task.identity,
                "step": self.step,
                "best": self.best,
                "worse": self.worse,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
            }
            save_state(self.folder / STATE, state)

    def _mean(self, loss: Tensor) -> Tensor:
        """Average over the processes' shares, which are equally large."""
        if self.place.world > 1:
            torch.distributed.all_reduce(loss)
        return loss / self.place.world

    def _from_first(self, compute: Callable[[], tuple[float, float]]) -> tuple[float, float]:
        """Let the first process compute and tell the others, so that all stop at the same step."""
        values = torch.tensor(compute() if self.place.rank == 0 else (0.0, 0.0), dtype=torch.float64, device=self.place.device)
        if self.place.world > 1:
            torch.distributed.broadcast(values, src=0)
        first, second = values.tolist()
        return first, second


def _average(model: nn.Module, decay: float) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

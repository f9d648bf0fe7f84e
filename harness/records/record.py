"""The record: one cell of the matrix, measured; the only thing that reports read.

A record is one JSON file with a checksum.
"""

from __future__ import annotations

from math import isclose
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from vtpbench.harness.host.checksummed import Frozen, dump_checksummed, load_checksummed
from vtpbench.harness.records.answer_shares import AnswerShares
from vtpbench.harness.records.names import CellId, SuiteName

SCHEMA_VERSION = 2
CODE = "vtpbench-code"
"""Name, among an environment's versions, of the harness's code that decides numbers: a release's revision, or a hash."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Amount = Annotated[float, Field(ge=0, le=1e15)]
Score = Annotated[float, Field(ge=-1e12, le=1e12)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
VTPBENCH, PYTHON = "vtpbench", "python"
"""Names among an environment's versions that say for people what it was, and are no part of a cell's identity."""
Status = Literal["ok", "failed", "infeasible", "unsupported"]
OnBadQuestion = Literal["fail", "skip"]
"""What becomes of a cell with a question that cannot be asked: it fails, or the question is left out and counted."""
TOLERANCE = 1e-9
"""Relative, and absolute; the last bits of a mean depend on the machine that adds up."""


Dtype = Literal["float32", "bfloat16", "float16"]
"""Number formats that models are run in."""
DUMMY = "dummy"
"""Weights that were drawn, of a model or of a pruner's network: they stand for any others, as far as speed is meant."""


class ModelInfo(Frozen):
    """The model as it was run."""

    label: str
    """Name in the suite and in tables."""
    id: str
    """Hub id, or path as the suite gives it."""
    family: str
    weights: str
    """Hash of the weights, or the hub revision; `DUMMY` where they were drawn."""
    dtype: str
    attention: str
    """Attention kernel of the language model."""
    preprocessing: str
    """How images reach the tower: `pad`, `crop`, or the protocol of the family (`fixed672`, `native`, `dynamic`)."""
    prompt: str
    """Name or hash of the prompt template."""
    vision_tokens: Count | None
    """Tokens of one image where the model has a fixed number."""
    tower: str | None = None
    """Hash of the vision tower, as `weights`, where it lies in a folder of its own."""
    family_code: str | None = None
    """Hash of the family's source files where it comes from another distribution; of ours `versions` has it."""


class PrunerInfo(Frozen):
    """The pruner as it was run."""

    name: str
    label: str
    """Row in tables; the same pruner can stand in several rows with other options."""
    options: dict[str, Any]
    """All options, defaults included, but for the seed; files as the suite names them."""
    code: str
    """Hash of the pruner's source file."""
    distribution: str
    """Where it came from: `vtpbench`, another package, or a file."""
    fingerprint: str | None = None
    """Hash of the files beside the options that decide what it keeps, such as trained weights; None where there are none."""
    files: dict[str, str] = Field(default_factory=dict, exclude=True)
    """Where the files that options name lie on this machine, by option; no part of a record."""

    @property
    def placeless(self) -> str:
        """Name of the pruner wherever its own file lies: that of its class, or the registered one."""
        return self.name.rpartition(":")[2] if self.is_file else self.name

    @property
    def is_file(self) -> bool:
        """Whether the pruner is the class of a file, and no registered one."""
        return ".py:" in self.name


class BudgetInfo(Frozen):
    """What was asked for; exactly one of `tokens` and `ratio` unless the cell is vanilla."""

    tokens: Count | None = None
    """Average vision tokens per image and decoder layer."""
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    """The same as a fraction of the image's tokens, 0-1."""

    @property
    def label(self) -> str:
        """Name as suites and tables have it: `16`, `11.1%`, or `all`."""
        if self.tokens is not None:
            return str(self.tokens)
        return "all" if self.ratio is None else f"{100 * self.ratio:.4g}%"


NO_FILTER = "none"
"""lmms-eval's name for answers as they are."""


FIXED_DIVISORS = {"ocrbench_accuracy": 1000}
"""Metrics that their task divides by so much, whatever was asked; a score divides by the questions that were."""


def split_terms(metric: str) -> tuple[tuple[str, str | None], ...]:
    """Metrics whose sum is a score, each with the filter that is named for it: `a` and `b` of `a + b`, `a` and `f` of `a,f`."""
    parts = (term.partition(",") for term in metric.split("+"))
    return tuple((name.strip(), each.strip() or None) for name, _, each in parts)


class DrawInfo(Frozen):
    """How the questions were drawn where a limit does not mean the first ones."""

    seed: Count
    together: str
    """Column whose equal values were drawn together; empty = the content of the question's first picture."""


class BenchmarkInfo(Frozen):
    """The benchmark as it was run."""

    label: str
    """Column in tables."""
    task: str
    """lmms-eval task."""
    metric: str
    """Metric of the score in lmms-eval's results, `metric,filter` where the task has filters, or a sum `a + b` of these."""
    scale: float = Field(gt=0, le=1e9)
    """Factor from the metric to the reported score."""
    split: str
    limit: Count | None
    dataset: str
    """Fingerprint of the questions and images."""
    generation: dict[str, Any]
    """Generation arguments in force."""
    profile: str | None = None
    """Profile whose choices differ from the task's and are in force, such as `paper`; None = the task's own, or the suite's."""
    draw: DrawInfo | None = None
    """None = the first `limit` questions."""
    higher_is_better: bool = True
    """Direction of the metric as the task declares it."""
    on_bad_question: OnBadQuestion = "fail"
    """What becomes of a cell with a question that cannot be asked."""

    @property
    def terms(self) -> tuple[str, ...]:
        """Metrics whose sum is the score, without their filter."""
        return tuple(term for term, _ in split_terms(self.metric))

    @property
    def filter(self) -> str:
        """Name of the filter that answers went through before they were scored."""
        return split_terms(self.metric)[0][1] or NO_FILTER


class Observed(Frozen):
    """What the real forward passes showed."""

    tokens: Amount
    """Vision tokens that entered a decoder layer, mean over layers, then over images."""
    original: Amount
    """Vision tokens of the unpruned image, mean over images."""
    per_layer: list[Amount]
    """Mean over images of the vision tokens that entered each decoder layer."""
    images: Count
    answer_tokens: Amount | None = None
    """Tokens generated for an answer, the one that ends it included, mean over answers; None where nobody counted."""


class Timing(Frozen):
    """Where the wall-clock time of the cell went, seconds; not a speed measurement."""

    wall_s: float
    generate_s: float
    overhead_s: float
    """wall_s - generate_s: switching the pruner, task, metrics, writing."""


class BatchInfo(Frozen):
    """Batching as it happened."""

    requested: Count
    smallest: Count
    """Smallest batch that was needed; less than requested after running out of device memory."""
    share_prefix: bool = False
    """Whether questions about a picture were asked behind one prefill of it, where that can be."""
    graphs: bool = False
    """Whether decoding steps kept their shapes and addresses, so that a GPU could replay them."""
    graphs_replayed: list[str] = Field(default_factory=list)
    """What the process had replayed of such rows' passes when the cell ended, for whichever cell; time alone depends on it."""
    graphs_refused: str | None = None
    """What was not although it came again, with the reasons."""

    def with_more(self, other: BatchInfo) -> BatchInfo:
        """Add what another part of the same cell's questions was batched as, perhaps in another process."""
        replayed = sorted({*self.graphs_replayed, *other.graphs_replayed})
        reasons = [each for batch in (self, other) for each in (batch.graphs_refused or "").split("; ") if each]
        refused = "; ".join(dict.fromkeys(reasons)) or None
        smallest = min(self.smallest, other.smallest)
        return self.model_copy(update={"smallest": smallest, "graphs_replayed": replayed, "graphs_refused": refused})


class Environment(Frozen):
    """What the cell ran on."""

    versions: dict[str, str]
    """Of vtpbench, lmms-eval, transformers, torch, pillow, tokenizers, python; and `vtpbench-code`."""
    device: str
    """Name of the GPU, or of the processor followed by `(cpu)`."""
    platform: str
    git_commit: str | None

    @property
    def device_kind(self) -> str:
        """What numbers may depend on: `CPU`, whichever it is, or the GPU's name."""
        return "CPU" if self.device.endswith("(cpu)") else self.device


class Record(Frozen):
    """One measured cell."""

    schema_version: int = SCHEMA_VERSION
    cell_id: CellId
    """Hash of everything that can change a number."""
    suite: SuiteName
    status: Status
    reason: str | None = None
    """Why the status is not ok; a traceback where the cell failed."""
    model: ModelInfo
    pruner: PrunerInfo
    budget: BudgetInfo
    benchmark: BenchmarkInfo
    seed: Count
    seeds: list[Count] = Field(default_factory=list)
    """All that the suite asked for of this row and benchmark; empty where that is not known."""
    score: Score | None = None
    """The reported number, scale applied; None unless the status is ok."""
    stderr: Amount | None = None
    """Of `score`, from the per-sample scores; None where the metric is no mean, or where there is no score."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Every number that lmms-eval gave for the task."""
    n: Count = 0
    """Samples."""
    samples_sha256: Digest | None = None
    """Hash of the per-sample table's file; None where it has none."""
    skipped: dict[str, str] = Field(default_factory=dict)
    """Questions that were left out of the score, by sample, each with what was wrong with it."""
    answers: AnswerShares | None = None
    """What the answers look like; None where there are none."""
    observed: Observed | None = None
    timing: Timing | None = None
    batch: BatchInfo | None = None
    environment: Environment
    created: str
    """UTC, ISO 8601."""

    @field_validator("score", "stderr")
    @classmethod
    def _only_where_ok(cls, value: float | None, info: ValidationInfo) -> float | None:
        """Refuse a score of a cell that failed: readers need to ask for the score alone."""
        if value is not None and info.data.get("status") != "ok":
            raise ValueError("only a cell whose status is ok has a score")
        return value

    @property
    def remarks(self) -> list[str]:
        """What is suspicious of the answers behind a score, in words; none where nothing is."""
        limit = self.benchmark.generation.get("max_new_tokens")
        if self.answers is None or self.score is None:
            return []
        return self.answers.remarks(self.n, limit if isinstance(limit, int) else 0)

    def dump(self) -> str:
        """Serialise with the checksum; the same record gives the same text."""
        return dump_checksummed(self)


def agree(one: float, other: float) -> bool:
    """Whether two numbers are the same result."""
    return isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def load_record(path: Path) -> Record:
    """Read one record file; raises `BadRecord` where it is truncated, edited or of another schema."""
    return load_checksummed(path, Record, SCHEMA_VERSION)

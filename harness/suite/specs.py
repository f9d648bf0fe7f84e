"""What stands in the lists of a suite: a model, a pruner, a budget."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from vtpbench.harness.host.files import is_hub_id, locate
from vtpbench.harness.host.plugin_errors import plugin_errors
from vtpbench.harness.records.environment import release_revision
from vtpbench.harness.records.record import DUMMY, BudgetInfo, Dtype, PrunerInfo
from vtpbench.harness.suite.bounded_yaml import shortened
from vtpbench.harness.suite.options import DEMO, model_path
from vtpbench.harness.suite.strict_yaml import LARGEST, Strict, reject
from vtpbench.pruners.errors import BadOption, UserError
from vtpbench.pruners.registry import PrunerEntry, build, find

if TYPE_CHECKING:
    from vtpbench.pruners.base import Pruner

Attention = Literal["sdpa", "eager", "flash_attention_2"]
DUMMY_PREFIX = f"{DUMMY}:"
"""Before the name of a configuration: a model of that shape with random weights."""
FILE = re.compile(r".*/.*|.+\.[A-Za-z]\w*")
"""What may name a file: a folder, or an extension. `dummy`, `raster` and `1.5` are values, whatever lies beside the suite."""


class ModelSpec(Strict):
    """A model: hub id or checkpoint folder, and what of its use can change a number. Plain text is the path alone."""

    path: str = Field(min_length=1)
    """Checkpoint folder (from the suite's folder, else from the working folder), hub id, or `demo`, the embedded model."""
    label: str = Field(min_length=1)
    """Name in tables; the last part of the path unless given."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: Dtype | None = None
    """None = the suite's, else the checkpoint's own."""
    attention: Attention | None = None
    """Kernel of the language model; None = the suite's."""
    preprocessing: str | None = None
    """How images reach the tower, one of the model family's ways; None = its first."""
    prompt: str | None = None
    """Prompt template: `vicuna_v1`, or a Jinja file (from the suite's folder, else the working folder); None = the model's."""
    text_tower: str | None = None
    """CLIP model that the vision tower comes from, a hub id or a folder; None = the one that the family knows."""
    _local: Path | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        spec = {"path": data} if isinstance(data, str) else data
        if isinstance(spec, Mapping) and "protocol" in spec:  # the word for it where there are tiles
            reject(f"a protocol is a way of preprocessing here: write `preprocessing: {spec['protocol']}`", "protocol")
        if isinstance(spec, Mapping) and "label" not in spec and isinstance(spec.get("path"), str):
            return {**spec, "label": Path(spec["path"]).name}
        return spec

    @field_validator("path")
    @classmethod
    def _must_exist(cls, value: str, info: ValidationInfo) -> str:
        elsewhere = is_hub_id(value) or value.startswith(DUMMY_PREFIX) or _is_embedded(value, info.context)
        if not elsewhere and not os.path.isdir(locate(value, info.context)):
            reject(f"no checkpoint folder {locate(value, info.context)}; give a folder, a hub id (owner/name), or {DEMO}")
        return value

    @field_validator("prompt")
    @classmethod
    def _must_be_a_template(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or value == "vicuna_v1":
            return value
        if not os.path.isfile(locate(value, info.context)):
            reject(f"no prompt template {locate(value, info.context)}; give a Jinja file, or vicuna_v1")
        return str(locate(value, info.context))

    @field_validator("text_tower")
    @classmethod
    def _must_be_found(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        folder = locate(value, info.context)
        if os.path.isdir(folder):
            return str(folder)
        if not is_hub_id(value):
            reject(f"no folder {folder} of a CLIP model; give a folder, or a hub id (owner/name)")
        return value

    def model_post_init(self, context: Any) -> None:
        """Note where the folder is, while the suite's place is known."""
        if _is_embedded(self.path, context):
            self._local = Path(model_path(DEMO))
            return
        folder = Path((context or {}).get("folder", ""))
        places = (folder / os.path.expanduser(self.path), Path(os.path.expanduser(self.path)))
        self._local = next((place.resolve() for place in places if os.path.isdir(place)), None)

    @property
    def location(self) -> str:
        """What to load: the absolute path of a local folder, or the hub id."""
        return str(self._local or self.path)

    @property
    def dummy(self) -> str | None:
        """Configuration for which random weights are drawn, named behind `dummy:`; None for a checkpoint."""
        return self.path.removeprefix(DUMMY_PREFIX) if self.path.startswith(DUMMY_PREFIX) else None


class PrunerSpec(Strict):
    """A pruner with options: `name`, `name: {option: value}`, or the long form with `label`, `name` and `options`.

    `sequence: [first, second]` stands for the pruner `sequence`; the first one's `share` stands among its options.
    """

    name: str
    """Registered name, or `path/to/file.py:Class`."""
    label: str = Field(min_length=1)
    """Row in tables; the name unless given."""
    options: dict[str, Any] = Field(default_factory=dict)
    _files: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        spec = {"name": data} if isinstance(data, str) else data
        if isinstance(spec, Mapping) and isinstance(spec.get("sequence"), list):
            return _in_sequence(spec)
        if isinstance(spec, Mapping) and len(spec) == 1 and "name" not in spec:
            name, options = next(iter(spec.items()))
            spec = {"name": name, "options": {} if options is None else options}
        if isinstance(spec, Mapping) and "label" not in spec and isinstance(spec.get("name"), str):
            return {**spec, "label": spec["name"].rpartition(":")[2]}
        return spec

    def model_post_init(self, context: Any) -> None:
        """Note where the files lie that options name, such as trained weights, while the suite's place is known."""
        named = {name: option for name, option in self.options.items() if isinstance(option, str) and FILE.fullmatch(option)}
        found = {name: locate(option, context) for name, option in named.items()}
        self._files = {name: str(path) for name, path in found.items() if os.path.isfile(path)}

    @property
    def files(self) -> dict[str, str]:
        """Absolute path of each file that an option names, by option: beside the suite, else in the working folder."""
        return self._files

    @property
    def placed(self) -> dict[str, Any]:
        """What to build the pruner with: the options, and for files where they lie."""
        return {**self.options, **self._files}

    @model_validator(mode="after")
    def _must_be_known(self) -> PrunerSpec:
        try:
            find(self.name)
        except UserError as e:
            reject(str(e))
        if "seed" in self.options:
            reject("give seeds as `seeds: [0, 1]` beside `pruners`, not as an option", "options", "seed")
        try:
            if self.options:  # else there is nothing to check here, and torch need not be imported
                with plugin_errors(self.name):
                    build(self.name, self.placed)
        except BadOption as e:
            reject(str(e), "options", e.option)
        except UserError as e:
            reject(str(e), "options")
        return self


def _in_sequence(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Write `sequence: [first: {share: 0.5}, second]` out as the pruner of that name with its options."""
    beside = {key: value for key, value in spec.items() if key != "sequence"}
    if "name" in beside or "options" in beside:
        reject("beside `sequence` only a `label` may stand; options go behind the names of its pruners", "sequence")
    if len(spec["sequence"]) != 2:
        reject("a sequence has two pruners, one before the language model and one inside it", "sequence")
    options: dict[str, Any] = {}
    for number, (turn, stage) in enumerate(zip(("first", "second"), spec["sequence"], strict=True)):
        written = {stage: None} if isinstance(stage, str) else stage
        name, given = next(iter(written.items())) if isinstance(written, Mapping) and len(written) == 1 else (None, None)
        if not isinstance(name, str) or not isinstance(given, Mapping | None):
            reject("write a pruner of a sequence as `name`, or `name: {option: value}`", "sequence", number)
        own = dict(given or {})
        if turn == "first" and "share" in own:
            options["share"] = own.pop("share")
        options |= {turn: name, f"{turn}_options": own}
    label = " + ".join(options[turn].rpartition(":")[2] for turn in ("first", "second"))
    return {"label": label, **beside, "name": "sequence", "options": options}


def _is_embedded(path: str, context: Mapping[str, Any] | None) -> bool:
    """Whether a path means the embedded model: there is no checkpoint of that name."""
    return path == DEMO and not os.path.isfile(locate(path, context) / "config.json")


VANILLA, RANDOM = PrunerSpec(name="vanilla", label="vanilla"), PrunerSpec(name="random", label="random")
"""Measured unasked: what all are divided by, and what all that prune must beat."""


def automatic(named: Iterable[PrunerSpec]) -> tuple[PrunerSpec, PrunerSpec]:
    """Give the vanilla and the random that come unasked: as they are named elsewhere in the suite, else under their own names."""
    specs = tuple(named)
    vanilla, floor = (next((spec for spec in specs if spec.name == default.name), default) for default in (VANILLA, RANDOM))
    return vanilla, floor


def is_seeded(name: str) -> bool:
    """Whether a pruner draws at random: it then has a field `seed`."""
    return any(field.name == "seed" for field in dataclasses.fields(find(name).load()))


def build_seeded(name: str, options: Mapping[str, Any], seed: int) -> Pruner:
    """Make a pruner, with the seed where it draws at random."""
    return build(name, {**options, "seed": seed} if is_seeded(name) else options)


def with_random_weights(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Let a trained network that options do not name have random weights: neither counts nor speed depend on their values."""
    trained = "checkpoint" in {field.name for field in dataclasses.fields(find(name).load())}
    named = options.get("checkpoint") is not None
    return {**options, "checkpoint": DUMMY} if trained and not named else dict(options)


def build_described(spec: PrunerSpec, fingerprint: Callable[[Pruner], str] = lambda pruner: "") -> tuple[Pruner, PrunerInfo]:
    """Make a pruner, and state it with all its options, defaults included; the seed belongs to the cell.

    `fingerprint` hashes files beside the options that decide what it keeps, such as trained weights. Raises `UserError` for
    a pruner that breaks.
    """
    with plugin_errors(spec.name):
        pruner = build(spec.name, spec.placed)
        return pruner, _described(spec, pruner, fingerprint(pruner))


def _described(spec: PrunerSpec, pruner: Pruner, fingerprint: str) -> PrunerInfo:
    entry = find(spec.name)
    options = {field.name: getattr(pruner, field.name) for field in dataclasses.fields(pruner) if field.name != "seed"}
    return PrunerInfo(
        name=spec.name,
        label=spec.label,
        options={name: spec.options[name] if name in spec.files else option for name, option in options.items()},
        code=_code([entry, *map(find, pruner.parts)]),
        distribution=entry.distribution,
        fingerprint=fingerprint or None,
        files=spec.files,
    )


def _code(entries: Iterable[PrunerEntry]) -> str:
    """Name the source that decides: of one pruner as it is, of one that is made of others all of it together."""
    found = [(release_revision() if entry.distribution == "vtpbench" else None) or entry.code() for entry in entries]
    different = list(dict.fromkeys(found))
    return different[0] if len(different) == 1 else sha256("\0".join(different).encode()).hexdigest()[:16]


def _budget(data: Any) -> Any:
    """Read a count (48) or a percentage ("33.3%")."""
    if isinstance(data, int) and not isinstance(data, bool):
        if data <= 0:
            reject(f"a budget must be at least 1 vision token, not {data}")
        if data > LARGEST:
            reject(f"a budget of {data} vision tokens is more than any image has")
        return BudgetInfo(tokens=data)
    try:
        percent = float(data[:-1]) if isinstance(data, str) and data.endswith("%") else math.nan
    except ValueError:
        percent = math.nan
    if math.isnan(percent):
        reject(f"a budget is a count of vision tokens (48) or a percentage of them (33.3%), not {shortened(data)}")
    if not 0 < percent <= 100:
        reject(f"a budget must be above 0% and at most 100%, not {data}")
    return BudgetInfo(ratio=round(percent / 100, 12))


Budget = Annotated[BudgetInfo, BeforeValidator(_budget)]


def refuse_large_budget(budget: BudgetInfo, vision_tokens: int | None, label: str, where: str = "") -> None:
    """Raise `UserError` for more tokens than an image of the model `label` has, where every image has equally many."""
    if vision_tokens is not None and (budget.tokens or 0) > vision_tokens:
        tokens = f"the {vision_tokens} vision tokens of model '{label}'"
        raise UserError(f"{where}budget {budget.tokens} is larger than {tokens}")

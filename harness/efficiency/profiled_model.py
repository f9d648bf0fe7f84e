"""The model that is profiled: a checkpoint, random weights for a configuration, or the configuration alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtpbench.harness.host import hub
from vtpbench.harness.host.files import is_hub_id
from vtpbench.harness.host.json_text import load_json
from vtpbench.harness.models.dummy import PUBLISHED, describe_dummy, open_dummy
from vtpbench.harness.models.load import Described, describe_model, open_model
from vtpbench.harness.models.original import is_original
from vtpbench.harness.records.record import DUMMY
from vtpbench.harness.suite.specs import ModelSpec
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    import torch

    from vtpbench.harness.models.family import Family


def describe(spec: ModelSpec, dtype: str | None, attention: str) -> Described:
    """Say what a model is: a checkpoint, or behind `dummy:` a configuration that random weights are drawn for.

    Without a dtype it is run in the one that its configuration names.
    """
    options: dict[str, Any] = {"dtype": dtype, "attention": attention, "preprocessing": spec.preprocessing}
    if spec.dummy is not None:
        described = describe_dummy(spec.dummy, **options)
    else:
        options |= {"revision": spec.revision, "prompt": spec.prompt, "text_tower": spec.text_tower}
        described = describe_model(spec.label, spec.location, **options)
    info = described.info.model_copy(update={"id": spec.path, "label": spec.label})
    return dataclasses.replace(described, info=info)


def open_for_speed(described: Described, device: torch.device) -> Family:
    """Open a model whose answers never end early, so that all rows generate equally many tokens."""
    import transformers

    if described.info.weights == DUMMY:
        return open_dummy(described, device)
    transformers.logging.disable_progress_bar()  # the profile has one of its own
    family = open_model(described, device)
    family.model.generation_config = transformers.GenerationConfig()
    return family


def describe_counted(spec: ModelSpec, dtype: str | None, attention: str) -> Described:
    """Say what a model is of which nothing but the configuration is needed.

    Of a folder that is its own, of a published hub id the one that comes along, of another that in the cache, or on the hub.
    Raises `UserError` where there is none, and for the layout of the original LLaVA, whose configuration leaves the tower out.
    """
    own, published = Path(spec.location) / "config.json", PUBLISHED.get(spec.path)
    if published is None and spec.dummy is None and not own.is_file():
        own = _hub_config(spec)
    if own.is_file() and is_original(load_json(own, finite=False)):
        raise UserError(f"model '{spec.label}': {spec.path} is in the original layout: its weights are needed, too")
    name = spec.dummy or published or str(own)
    described = describe_dummy(name, dtype=dtype, attention=attention, preprocessing=spec.preprocessing)
    info = described.info.model_copy(update={"id": spec.path, "label": spec.label})
    shape = dataclasses.replace(described.shape, folder=str(own.parent)) if own.is_file() else described.shape
    return dataclasses.replace(described, info=info, shape=shape)


def _hub_config(spec: ModelSpec) -> Path:
    """Find the configuration of a hub id in the cache, else fetch it alone."""
    cached = hub.cached_model(spec.path, spec.revision) if is_hub_id(spec.path) else None
    if cached is not None:
        return cached / "config.json"
    if is_hub_id(spec.path) and hub.offline_reason() is None:
        return hub.fetch_config(spec.path, spec.revision)
    known = ", ".join(PUBLISHED)
    raise UserError(f"model '{spec.label}': no configuration of {spec.path} here; give a folder, or one of {known}")

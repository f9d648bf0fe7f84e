"""Models of transformers that somebody else has loaded: the family of each, around the model as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.load import beside_vision_tower, place_text_tower, verify_template
from vtpbench.harness.models.pretrained import with_own_settings
from vtpbench.harness.models.registry import stock_families
from vtpbench.pruners.errors import UserError


def hooked_family(model: Any, processor: Any = None, text_tower: str | None = None) -> Family:
    """Give the family of a model that is asked through its own `generate`; `processor` only reads prompts.

    `text_tower` is as in `wrapped_family`. Raises `UserError` for what is no supported model, or cannot be run as it is.
    """
    family = _family_class(model)
    _require_usable(model)
    tokenizer = getattr(processor, "tokenizer", processor)
    as_processed = family.preprocessings[-1]  # the stock processor's way
    template = next(
        (text for part in (processor, tokenizer) if isinstance(text := getattr(part, "chat_template", None), str)), ""
    )
    return _placed(family(model, tokenizer, None, template, as_processed), model, text_tower)


def wrapped_family(
    model: Any,
    processor: Any,
    preprocessing: str | None = None,
    template: str | None = None,
    text_tower: str | None = None,
) -> Family:
    """Give the family of a model, with prompts and images made by ours; nothing of the model is changed.

    Parameters
    ----------
    model : with its weights, in evaluation mode
    processor : its `AutoProcessor`
    preprocessing : one of the family's ways; None = its first
    template : Jinja text; None = that of the processor
    text_tower : CLIP model of the vision tower, a hub id or a folder; None = the one that the family knows

    Raises
    ------
    UserError : no supported model, no processor, an unknown preprocessing, a template that is wrong

    """
    family = _family_class(model)
    _require_usable(model)
    name = type(model).__name__
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise UserError(f"{type(processor).__name__} is no processor of {name}; give its AutoProcessor")
    if preprocessing not in (None, *family.preprocessings):
        raise UserError(f"preprocessing '{preprocessing}' is not one of {name}'s ({', '.join(family.preprocessings)})")
    text = template or _own_template(processor, family)
    parts = with_own_settings(model), processor.tokenizer, processor.image_processor, text
    made = _placed(family(*parts, preprocessing or family.preprocessings[0]), model, text_tower)
    verify_template(made, name)
    return made


def _family_class(model: Any) -> Any:
    """Find the family whose class of transformers this is; raises `UserError` that names all of them."""
    families = stock_families()
    found = [family for family in families if isinstance(model, family.model_class())]
    if not found:
        known = ", ".join(family.model_class().__name__ for family in families)
        raise UserError(f"{type(model).__name__} is not supported; give a model of transformers: {known}")
    return found[0]


def _require_usable(model: Any) -> None:
    """Raise `UserError` for a model without values, on several devices, or that is being trained."""
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if "meta" in devices:
        raise UserError("the model is on device 'meta', which holds no values; load its weights first")
    if len(devices) > 1:
        raise UserError(f"the model lies on several devices ({', '.join(devices)}); load it onto one, without device_map='auto'")
    if model.training:
        raise UserError("the model is being trained; call model.eval() first")


def _own_template(processor: Any, family: type[Family]) -> str:
    """Give the prompt template that comes with a processor, or that of its family."""
    found = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    if isinstance(found, str):
        return found
    if found is None and family.default_template is not None:
        return family.default_template
    what = "no chat template" if found is None else "several chat templates"
    raise UserError(f"the processor brings {what}; give the one to use: prompt='template.jinja'")


def _placed(family: Family, model: Any, text_tower: str | None) -> Family:
    """Tell pruners the model's folder, where it was loaded from one (trained weights may lie there), and its text tower."""
    folder = str(getattr(model, "name_or_path", ""))
    if folder and Path(folder).is_dir():
        family.shape = replace(family.shape, folder=folder)
    named = text_tower or family.clip_model(model.config)
    place_text_tower(family, beside_vision_tower(family.shape, named, type(model).__name__))
    return family

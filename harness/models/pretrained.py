"""Load a model's weights, all of them, and nothing of a checkpoint's generation settings but how answers end."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from vtpbench.pruners.errors import UserError
from vtpbench.pruners.lazy import torch


def read_pretrained(cls: Any, folder: Path | str | None, **options: Any) -> Any:
    """Call `from_pretrained` of a class of transformers such that no code that a checkpoint brings along is run.

    All of vtpbench's go through here: unless told so, transformers asks on standard input whether to run it.
    """
    return cls.from_pretrained(folder, **options, trust_remote_code=False)


def load_pretrained(cls: Any, folder: Path | str, device: torch.device, *, given: bool = False, **options: Any) -> Any:
    """Load a class of transformers from a folder onto a device, for inference.

    Parameters
    ----------
    cls : with `from_pretrained`
    folder : of the checkpoint
    device : to move it to
    given : the weights are in the options (`config`, `state_dict`), the folder is only named in errors
    options : of `from_pretrained`

    Raises
    ------
    UserError : weights are missing or have another shape; transformers would draw them at random

    """
    model = read_complete(cls, folder, given=given, **options)
    model.generation_config = ending(model)
    return model.to(device).eval()


def read_complete(cls: Any, folder: Path | str, *, given: bool = False, **options: Any) -> Any:
    """Read a class of transformers from a folder, as `load_pretrained` does, to where it has its weights: all, or `UserError`."""
    place = None if given else folder
    model, info = read_pretrained(cls, place, **options, output_loading_info=True, ignore_mismatched_sizes=True)
    if info["missing_keys"]:
        raise UserError(f"{folder} lacks weights: {_some(info['missing_keys'])}; fetch all its files")
    if info["mismatched_keys"]:
        wrong = _some(name for name, *_ in info["mismatched_keys"])
        raise UserError(f"{folder}: weights of another shape than config.json says: {wrong}; fetch all its files from one place")
    return model


def with_own_settings(model: Any) -> Any:
    """Give a model that shares all its parts with `model`, and has settings for `generate` of its own, those of `ending`."""
    view = copy.copy(model)
    view.generation_config = ending(model)
    return view


def ending(model: Any) -> Any:
    """Make settings for `generate` with nothing but the tokens that begin, pad and end a text.

    Whatever a call of `generate` leaves open is taken from the model's settings, and many checkpoints bring some: penalties
    for repetition, sampling, caches. Only without them is decoding the same for all models.
    """
    from transformers import GenerationConfig

    own, text = model.generation_config, model.config.get_text_config()
    found = {}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(own, name, None)
        found[name] = getattr(text, name, None) if value is None else value
    return GenerationConfig(**found)


def _some(names: Any) -> str:
    """Name the first three of some names, and count the rest."""
    first, *rest = sorted(names)
    return ", ".join([first, *rest[:2], *([f"and {len(rest) - 2} more"] if len(rest) > 2 else [])])

"""Decoding as tasks ask for it, and as lmms-eval's own adapter of a model takes it; vtpbench decodes greedily."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vtpbench.harness.models.answer_rule import BLANK_LINE
from vtpbench.harness.models.registry import answer_rule
from vtpbench.pruners.errors import UserError


def asked_by(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Collect a task's generation arguments as lmms-eval does, the stop text that it fills in among them."""
    filled = {"until": definition.get("fewshot_delimiter", BLANK_LINE), **(definition.get("generation_kwargs") or {})}
    return {**filled, **((definition.get("model_specific_generation_kwargs") or {}).get("default") or {})}


def greedy(asked: Mapping[str, Any], name: str, family: str) -> dict[str, Any]:
    """Write a task's generation arguments out in full, as a model of a family follows them.

    What reaches a scorer is then what lmms-eval's own adapter of that family hands it, to the last blank.

    Parameters
    ----------
    asked : the task's arguments
    name : says in the message whose they are
    family : of the model that answers

    Raises
    ------
    UserError : they are not greedy; like lmms-eval's own adapters, take a temperature above 0 for sampling

    """
    samples = asked.get("do_sample") or float(asked.get("temperature") or 0) > 0
    if samples or (asked.get("num_beams") or 1) > 1:
        kind = "sampling" if samples else "beam search"
        raise UserError(f"{name} asks for {kind}; vtpbench decodes greedily, override its generation_kwargs")
    rule, until = answer_rule(family), asked.get("until")
    stops = [until] if isinstance(until, str) else list(until or ())
    return {
        "do_sample": False,
        "max_new_tokens": asked.get("max_new_tokens") or rule.max_new_tokens,
        "until": [stop for stop in stops if stop and stop not in rule.never] if rule.cuts else [],
        **({"strip": True} if rule.strips else {}),
    }

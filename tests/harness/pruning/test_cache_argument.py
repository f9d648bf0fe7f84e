from __future__ import annotations

import inspect
from typing import Any

import pytest
from torch import nn

from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.cache_argument import cache_argument, cache_in


class Newer(nn.Module):
    def forward(self, states: Any, cache: Any = None, **rest: Any) -> None: ...


class Older(nn.Module):
    def forward(self, states: Any, past_key_values: Any = None, **rest: Any) -> None: ...


class Unsaid(nn.Module):
    def forward(self, **given: Any) -> None: ...


@pytest.mark.parametrize(("decoder", "name"), [(Newer(), "cache"), (Older(), "past_key_values"), (Unsaid(), "past_key_values")])
def test_the_argument_is_the_one_that_the_decoder_takes(decoder: nn.Module, name: str):
    assert cache_argument(decoder) == name


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_is_found_by_either_name_and_an_empty_one_is_one(name: str):
    empty: list[int] = []
    assert cache_in({"use_cache": True, name: empty}) is empty
    assert cache_in({name: None}) is None
    assert cache_in({}) is None


@pytest.mark.parametrize("kind", list(TINY))
def test_the_installed_transformers_calls_it_by_a_name_that_we_know(kind: str):
    decoder = TINY[kind]().decoder
    assert cache_argument(decoder) in inspect.signature(decoder.forward).parameters

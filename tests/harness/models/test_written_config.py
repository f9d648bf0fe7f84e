from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vtpbench.harness.models.configs
from vtpbench.harness.models.dimensions import Dimensions
from vtpbench.harness.models.dummy import dummy_names, read_configuration
from vtpbench.harness.models.load import describe_model
from vtpbench.harness.models.registry import entries
from vtpbench.harness.models.written_config import NotWritten, WrittenConfig, facts_of

FOLDER = Path(str(vtpbench.harness.models.configs.__file__)).parent
LLAMA = {"model_type": "llama", "num_hidden_layers": 4}


@pytest.mark.parametrize("name", dummy_names())
def test_a_packaged_configuration_says_what_transformers_makes_of_it(name: str) -> None:
    values = json.loads((FOLDER / f"{name}.json").read_text())
    family = entries()[values["model_type"]].load()
    written, read = WrittenConfig(values), read_configuration(FOLDER / f"{name}.json")
    if not values["model_type"].startswith(("llava", "qwen2")):
        pytest.skip("its file leaves to transformers which layers see all tokens")
    for preprocessing in family.preprocessings:
        assert family.describe(written, preprocessing) == family.describe(read, preprocessing)
    assert family.clip_model(written) == family.clip_model(read)
    assert Dimensions.from_config(written) == Dimensions.from_config(read)


def test_a_checkpoint_is_described_as_transformers_would(tiny_checkpoint: Path) -> None:
    family = entries()["llava"].load()
    shape, tokens = family.describe(family.read_config(tiny_checkpoint), "pad")
    found = describe_model("tiny", str(tiny_checkpoint))
    assert (found.shape.decoder_layers, found.shape.feature_layer, found.info.vision_tokens) == (
        shape.decoder_layers,
        shape.feature_layer,
        tokens,
    )


@pytest.mark.parametrize(
    "ask",
    [
        lambda config: config.hidden_size,
        lambda config: getattr(config, "max_position_embeddings", None),
        lambda config: WrittenConfig({**LLAMA, "num_hidden_layers": "4"}).num_hidden_layers,
        lambda config: WrittenConfig({**LLAMA, "num_hidden_layers": 4.5}).num_hidden_layers,
        lambda config: getattr(WrittenConfig({"model_type": "mistral"}), "sliding_window", None),
    ],
)
def test_what_is_not_said_plainly_is_left_to_transformers(ask: Callable[[Any], Any]) -> None:
    with pytest.raises(NotWritten):
        ask(WrittenConfig(LLAMA))
    assert facts_of(LLAMA, lambda: "read", lambda config: "read" if config == "read" else ask(config)) == "read"


def test_what_a_kind_of_model_does_not_have_is_absent() -> None:
    assert getattr(WrittenConfig(LLAMA), "sliding_window", None) is None
    assert WrittenConfig({**LLAMA, "sliding_window": 8}).sliding_window == 8
    inner = WrittenConfig({"text_config": LLAMA, "rope_parameters": {"factor": 2.0}})
    assert (inner.text_config.num_hidden_layers, inner.rope_parameters) == (4, {"factor": 2.0})

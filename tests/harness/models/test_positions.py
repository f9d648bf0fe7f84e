from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaConfig, Qwen2_5_VLConfig

from vtpbench.harness.models.positions import position_limit

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("rope", "stated", "limit"),
    [
        (None, 4096, 4096),
        ({"rope_type": "linear", "factor": 4.0}, 4096, 16384),
        ({"rope_type": "dynamic", "factor": 2.0}, 4096, 8192),
        (YARN, 32768, 131072),
        (YARN, 131072, 131072),
    ],
)
def test_the_limit_is_what_the_configuration_states_stretched_where_it_says_so(rope: Any, stated: int, limit: int) -> None:
    assert position_limit(LlamaConfig(max_position_embeddings=stated, rope_scaling=rope)) == limit


def test_of_a_model_of_several_parts_it_is_the_text_models() -> None:
    text = Qwen2_5_VLConfig(text_config={"max_position_embeddings": 128000}).get_text_config()
    assert position_limit(text) == 128000
    assert position_limit(object()) is None

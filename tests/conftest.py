"""Fixtures that several folders share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a tiny random LLaVA in Hugging Face form: 16 vision tokens, 6 decoder layers."""
    from transformers import LlavaProcessor

    from vtpbench.harness.models.tiny import tiny_llava

    folder = tmp_path_factory.mktemp("tiny-llava")
    tiny = tiny_llava()
    tiny.model.save_pretrained(folder)
    LlavaProcessor(
        image_processor=tiny.image_processor,
        tokenizer=tiny.tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=tiny.chat_template,
    ).save_pretrained(folder)
    return folder

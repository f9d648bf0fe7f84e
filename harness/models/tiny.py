"""Tiny random models of every family: for the conformance check and the tests, built in a second, never downloaded."""

from __future__ import annotations

from typing import Any

import torch

from vtpbench.harness.models.llava import VICUNA_V1, Llava

_SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]


def byte_tokenizer() -> Any:
    """Tokenizer of single bytes with LLaVA's special tokens; encodes any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*_SPECIAL, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(_SPECIAL)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
    )


def tiny_llava(attention: str = "sdpa", dtype: torch.dtype = torch.float32, side: int = 4, seed: int = 0) -> Llava:
    """Build a random LLaVA: `side` x `side` vision tokens, 4 vision layers, 6 decoder layers, grouped-query heads."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    tokenizer = byte_tokenizer()
    pixels = side * 4
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=pixels,
        patch_size=4,
        initializer_factor=3.0,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=4, image_seq_length=side * side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    model.set_attn_implementation(attention)
    processor = CLIPImageProcessorPil(size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels})
    return Llava(model.to(dtype).eval(), tokenizer, processor, VICUNA_V1, "pad")

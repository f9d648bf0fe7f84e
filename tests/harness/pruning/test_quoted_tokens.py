"""Questions that quote special tokens: the model reads their text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from vtpbench.harness.models.original import OriginalLlava
from vtpbench.harness.models.tiny import TINY, byte_tokenizer
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.harness.pruning.quoted_tokens import QuotedTokens

ORDINARY = [
    "What is it?",
    "",
    "  Is 3 < 5 > 2 | 1?\n\nA. <b>\tB. im_end",
    "Was heißt 这是什么?",
    "<image 1> shows",
    "</im><|>",
]
LETTERS = [chr(n) for n in range(33, 127)]


@pytest.mark.parametrize("name", TINY)
def test_every_special_token_in_a_question_is_text(name: str, tiny: Any, tools: Any) -> None:
    family = tiny(name)
    special = [token for token in family.tokenizer.all_special_tokens if token != "<image>"]
    texts = [f"What does {token} mean?" for token in special] + [
        "Is it <im<image>age>?",
        "".join(special),
        "<<|image_pad|><image",
    ]
    for text in texts:
        ids = family.token_ids(family.render(text, 2))
        assert ids.count(family.image_id) == 2
        plain = family.token_ids(family.render("§", 2))
        assert [i for i in ids if i < len(special)] == [i for i in plain if i < len(special)], text
        assert text.replace("<image>", "") in family.tokenizer.decode(ids)
        (answer,) = Pipeline(family).run([Prompt("key", text, [tools.picture(40, 30)])], 2).texts
        assert isinstance(answer, str)


@pytest.mark.parametrize("text", ORDINARY)
@pytest.mark.parametrize("name", TINY)
def test_ordinary_text_is_tokenized_as_it_always_is(name: str, text: str, tiny: Any) -> None:
    family = tiny(name)
    prompt = family.render(text, 1)
    assert text in prompt
    assert family.token_ids(prompt) == family.tokenizer(prompt)["input_ids"]
    assert family.quoted.token_ids(prompt, begin=True) == family.tokenizer(prompt)["input_ids"]


def sentencepiece(scheme: str, kind: str) -> PreTrainedTokenizerFast:
    """Tokenizer as Llama has it: pieces that begin with a blank, special tokens that are in the vocabulary and beyond it."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *LETTERS, "▁w", "ha", "▁wha", "▁i", "s?", "age", "▁m", "\n"]
    if kind == "unigram":
        core = Tokenizer(models.Unigram([(piece, -float(n)) for n, piece in enumerate(pieces)], unk_id=0))
    else:
        merges = [("▁", "w"), ("h", "a"), ("▁w", "ha"), ("▁", "i"), ("s", "?"), ("▁", "m")]
        core = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True))
    if scheme == "legacy":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.add_tokens([AddedToken("<image>", special=False, normalized=False), AddedToken("<pad>", special=True, normalized=False)])
    return fast


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("scheme", ["legacy", "first", "always"])
def test_what_is_quoted_is_cut_into_tokens_as_if_it_were_never_special(scheme: str, kind: str) -> None:
    tokenizer = sentencepiece(scheme, kind)
    quoted = QuotedTokens(tokenizer, "<image>")
    bare = json.loads(tokenizer.backend_tokenizer.to_str())
    bare["added_tokens"] = [token for token in bare["added_tokens"] if token["content"] == "<s>"]
    unaware = Tokenizer.from_str(json.dumps(bare))
    for text in ("what is <image>?", "<pad>", "<image><image>", "is? <pad>"):
        assert quoted.token_ids(quoted.mark(text), begin=True) == unaware.encode(text).ids, text
    for text in ("what is <image>?", "is?</s> what", "<unk> is <pad>", "<s>"):
        front, back = "<image>\nwha </s>", " is?<image>"
        ids = quoted.token_ids(front + quoted.mark(text) + back, begin=True)
        image, end = tokenizer.convert_tokens_to_ids(["<image>", "</s>"])
        assert (ids.count(image), ids.count(end)) == (2, 1)


def test_tokens_that_overlap_in_a_question_are_all_text() -> None:
    tokenizer = byte_tokenizer(["<unk>", "<s>", "</s>", "<pad>", "<a>b", "b<c>"])
    quoted = QuotedTokens(tokenizer, "<a>b")
    ids = quoted.token_ids(quoted.mark("<a>b<c> <a>b<c>"), begin=False)
    assert min(ids) > 5
    assert tokenizer.decode(ids) == "<a>b<c> <a>b<c>"


def test_where_prompts_are_split_at_the_marker_a_quoted_one_splits_nothing(tiny: Any) -> None:
    llava = tiny("llava")
    original = OriginalLlava(llava.model, byte_tokenizer(["<unk>", "<s>", "</s>", "<pad>"]), None, llava.chat_template, "pad")
    original.image_id = -200
    ids = original.token_ids(original.render("Is it <im<image>age> or </s>?", 2))
    assert ids.count(-200) == 2
    assert "Is it <image> or </s>?" in original.tokenizer.decode([i for i in ids if i >= 0])

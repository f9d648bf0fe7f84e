"""Special tokens that a question quotes, such as `<image>` or `<|im_end|>`: they are its text, and no tokens to the model.

A tokenizer takes every such text for its token. So a prompt carries quoted ones with a mark inside, and whoever tokenizes
it asks a twin of the tokenizer that knows the special tokens under other names. All else, how the text around them is cut
into tokens included, is the tokenizer's own; a prompt that quotes nothing never comes here.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Any

from vtpbench.pruners.errors import UserError

MARK = "\ufdd0"
"""Stands behind the first character of what is quoted: a code point that is no character, and in no text."""
RENAMED = "\ufdd1{}\ufdd2"
"""Name of a special token, by its id, where its own is text."""


class QuotedTokens:
    """What is special to one tokenizer, and how to write it as text.

    Parameters
    ----------
    tokenizer : of transformers
    image : what stands for an image in a prompt, special to the tokenizer or not

    """

    def __init__(self, tokenizer: Any, image: str) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        self._ids = {token.content: id for id, token in added if token.special or token.content == image}
        longest_first = sorted({*self._ids, image}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)))

    def mark(self, text: str) -> str:
        """Mark what is quoted in a question's text; most texts quote nothing and come back as they are."""
        if self._special.search(text):
            text = re.sub("[\ufdd0-\ufdd2]", "", text)
            while self._special.search(text):  # to mark one token may leave another that began inside it
                text = self._special.sub(lambda found: found[0][0] + MARK + found[0][1:], text)
        return text

    def token_ids(self, prompt: str, begin: bool) -> list[int]:
        """Tokenize a prompt with marks; `begin` adds what the tokenizer puts around a text."""
        named = self._special.sub(lambda found: RENAMED.format(self._ids[found[0]]), prompt)
        return list(self._twin.encode(named.replace(MARK, ""), add_special_tokens=begin).ids)

    @cached_property
    def _twin(self) -> Any:
        """The same tokenizer with other names for its special tokens."""
        from tokenizers import Tokenizer

        core = getattr(self._tokenizer, "backend_tokenizer", None)
        if core is None:
            kind = type(self._tokenizer).__name__
            raise UserError(f"a question quotes a special token, which a {kind} cannot tell from its own; give a tokenizer.json")
        state = json.loads(core.to_str())
        names = {text: RENAMED.format(id) for text, id in self._ids.items()}
        for token in state["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        model = state["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(text, text): id for text, id in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(text, text), score] for text, score in model["vocab"]]
        if "unk_token" in model:
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
        twin = Tokenizer.from_str(json.dumps(state))
        twin.no_truncation()
        twin.no_padding()
        return twin

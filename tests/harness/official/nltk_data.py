"""Data of NLTK as small as they can be, in the files that its tokenizer, tagger and WordNet are read from.

Tests load this file by its path. They know nouns alone, and of these a few plurals: enough for captions of three words.
"""

from __future__ import annotations

import json
from pathlib import Path

NOUNS = ("cat", "chair", "dog", "person", "car", "bus", "pizza", "puppy", "child")
IRREGULAR = {"children": "child", "people": "person"}


def write(folder: Path) -> None:
    """Write them into the folder that `nltk.data.path` is to name."""
    punkt = folder / "tokenizers" / "punkt_tab" / "english"
    empty = ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab")
    tagger = folder / "taggers" / "averaged_perceptron_tagger_eng"
    own = {"weights": {}, "tagdict": {}, "classes": ["NN"]}
    wordnet = folder / "corpora" / "wordnet"
    for place in (punkt, tagger, wordnet):
        place.mkdir(parents=True)
    for name in empty:
        (punkt / name).write_text("")
    for name, value in own.items():
        (tagger / f"averaged_perceptron_tagger_eng.{name}.json").write_text(json.dumps(value))
    for kind in ("adj", "adv", "noun", "verb"):
        for name in (f"index.{kind}", f"data.{kind}", f"{kind}.exc"):
            (wordnet / name).write_text("")
    for name in ("lexnames", "index.sense", "cntlist.rev"):
        (wordnet / name).write_text("")
    lines = [f"{noun} n 1 0 1 0 {number:08d}  \n" for number, noun in enumerate(NOUNS, 1)]
    (wordnet / "index.noun").write_text("".join(lines))
    (wordnet / "noun.exc").write_text("".join(f"{form} {noun}\n" for form, noun in IRREGULAR.items()))

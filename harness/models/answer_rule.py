"""What lmms-eval's adapter of a model family makes of a task's generation arguments."""

from __future__ import annotations

from dataclasses import dataclass

BLANK_LINE = "\n\n"
"""What lmms-eval fills in as the stop text of a task that names none."""


@dataclass(frozen=True)
class AnswerRule:
    """How the simple adapter of a family in lmms-eval 0.7.3 reads a task: tasks are asked in simple form here.

    Attributes
    ----------
    max_new_tokens : length of the longest answer where the task does not say
    cuts : whether an answer ends before the first stop text of the task
    never : stop texts at which it goes on nevertheless
    strips : whether blanks around an answer are taken away

    """

    max_new_tokens: int
    cuts: bool
    never: frozenset[str] = frozenset()
    strips: bool = False


READS_NO_STOPS = AnswerRule(max_new_tokens=1024, cuts=False)
"""Of `llava_hf` and `llava`, which read stop texts and use none."""

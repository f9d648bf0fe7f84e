"""What the answers of a cell look like: shares that tell a model that broke from one that is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vtpbench.harness.host.checksummed import Frozen

ENOUGH = 10
"""Answers from which on a share says something."""
EMPTY, AT_LIMIT = 0.1, 0.5
"""Shares from which on answers are remarked upon."""
SHORT_LIMIT = 8
"""Tokens up to which a limit is there to cut answers off."""
QUOTED = 40
"""Characters of an answer that are shown."""


class AnswerShares(Frozen):
    """Shares of a cell's answers, 0-1."""

    empty: float
    """Without any text."""
    at_limit: float
    """As long as they may be, without having come to an end."""
    most_common: float
    """Equal to the most common one."""
    text: str
    """The most common answer, its beginning."""
    most_common_target: float
    """Questions whose right answer is the most common one: what a model that always says the same can have."""

    def remarks(self, n: int, limit: int) -> list[str]:
        """Say what is suspicious of `n` answers of at most `limit` tokens."""
        found = []
        if n >= ENOUGH and self.most_common == 1 and self.most_common_target < 1:
            found.append(f"all {n} answers are equal" + (f" ('{self.text}')" if self.text else " and empty"))
        elif n >= ENOUGH and self.empty >= EMPTY:
            found.append(f"{100 * self.empty:.3g} % of the answers are empty")
        if n >= ENOUGH and self.at_limit >= AT_LIMIT and limit > SHORT_LIMIT:
            found.append(f"{100 * self.at_limit:.3g} % of the answers never end, and were cut off at {limit} tokens")
        return found


def count_shares(texts: Sequence[str], ended: Sequence[bool], targets: Sequence[str]) -> AnswerShares | None:
    """Count what answers look like; None where there are none."""
    if not texts:
        return None
    n, plain = len(texts), [" ".join(text.split()) for text in texts]
    (common, count), *_ = Counter(plain).most_common(1)
    return AnswerShares(
        empty=plain.count("") / n,
        at_limit=list(ended).count(False) / n,
        most_common=count / n,
        text=common[:QUOTED],
        most_common_target=max(Counter(targets).values(), default=0) / max(1, len(targets)),
    )

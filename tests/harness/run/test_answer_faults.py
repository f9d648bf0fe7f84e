"""Answers that mean nothing."""

from __future__ import annotations

import pytest

from vtpbench.harness.records.cell import Answer
from vtpbench.harness.run.answer_faults import refuse_not_finite
from vtpbench.pruners.errors import UserError


def answer(sample: int, finite: bool = True) -> Answer:
    return Answer(str(sample), "yes", (), (), (), finite=finite)


@pytest.mark.parametrize(
    ("dtype", "advice"), [("torch.float16", "bfloat16"), ("torch.bfloat16", "float32"), ("torch.float32", "damaged")]
)
def test_logits_that_are_not_finite_are_refused_with_their_share_and_what_to_try(dtype: str, advice: str) -> None:
    answers = [answer(n, finite=n not in (3, 5)) for n in range(8)]
    with pytest.raises(UserError, match=f"2 of 8 answers \\(25 %\\), first that to question 3, .*{advice}"):
        refuse_not_finite(answers, dtype)
    refuse_not_finite(answers[:3], dtype)

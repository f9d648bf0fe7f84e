from __future__ import annotations

import pytest
import torch

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.logits import FiniteLogits, answer_lengths
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.pruners.registry import build


def test_answers_end_with_the_first_token_that_ends_one() -> None:
    assert answer_lengths([[5, 2, 2], [5, 6, 7], [2, 0, 0]], 2) == ([2, 3, 1], [True, False, True])
    assert answer_lengths([[5, 9, 2], [5, 6, 7]], [2, 9]) == ([2, 3], [True, False])
    assert answer_lengths([[5, 2]], None) == ([2], [False])


def test_only_steps_of_the_answer_itself_count() -> None:
    seen = FiniteLogits()
    for bad in ((), (1,), (0, 2)):
        scores = torch.zeros(4, 7)
        scores[list(bad), 3] = torch.inf
        assert seen(torch.empty(4, 0), scores) is scores
    assert seen.all_finite([2, 3, 3, 3]) == [True, False, False, True]
    assert FiniteLogits().all_finite([0, 0]) == [True, True]


@pytest.fixture(params=TINY)
def broken(request: pytest.FixtureRequest) -> Family:
    """Model that overflows where a prompt has a Z in it."""
    family = TINY[request.param]()
    with torch.no_grad():
        family.model.get_input_embeddings().weight[family.tokenizer.convert_tokens_to_ids("Z")] = torch.inf
    return family


@pytest.mark.parametrize("pruner", ["vanilla", "random", "fastv"])
def test_a_prompt_whose_logits_overflow_is_told_from_its_neighbours(broken: Family, pruner: str, tools) -> None:
    prompts = [Prompt(text, text, [tools.picture(40, 30)]) for text in ("What?", "Z?", "Which?")]
    rule = (lambda n: None) if pruner == "vanilla" else (lambda n: n // 2)
    pipeline = Pipeline(broken, build(pruner, {}), rule)
    together = pipeline.run(prompts, 3)
    assert together.trace.finite == [True, False, True]
    alone = pipeline.run(prompts[:1], 3)
    assert alone.texts[0] == together.texts[0]
    assert alone.trace.ended[0] == together.trace.ended[0]

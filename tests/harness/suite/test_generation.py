import pytest

from vtpbench.harness.suite.generation import FALLBACK_MAX_NEW_TOKENS, greedy
from vtpbench.pruners.errors import UserError


@pytest.mark.parametrize(
    ("asked", "tokens", "until"),
    [
        ({}, FALLBACK_MAX_NEW_TOKENS, ["\n\n"]),
        ({"max_new_tokens": 8, "until": "ASSISTANT:"}, 8, ["ASSISTANT:"]),
        ({"max_new_tokens": None, "until": None}, FALLBACK_MAX_NEW_TOKENS, []),
        ({"until": ("a", "b"), "temperature": 0.0, "do_sample": False, "num_beams": 1, "top_p": 1.0}, 1024, ["a", "b"]),
        ({"temperature": None, "num_beams": None}, 1024, ["\n\n"]),
    ],
)
def test_what_a_task_asks_for_is_written_out(asked, tokens, until) -> None:
    assert greedy(asked, "task 'mine'") == {"do_sample": False, "max_new_tokens": tokens, "until": until}


@pytest.mark.parametrize(
    ("asked", "kind"),
    [({"do_sample": True}, "sampling"), ({"temperature": "0.2"}, "sampling"), ({"num_beams": 3}, "beam search")],
)
def test_what_is_not_greedy_is_refused(asked, kind) -> None:
    with pytest.raises(UserError, match=f"task 'mine' asks for {kind}; .*override its generation_kwargs"):
        greedy(asked, "task 'mine'")

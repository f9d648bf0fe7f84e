import pytest

from vtpbench.harness.suite.generation import BLANK_LINE, asked_by, greedy
from vtpbench.pruners.errors import UserError

QWEN = "qwen2_5_vl"


@pytest.mark.parametrize(
    ("family", "asked", "tokens", "until"),
    [
        ("llava", {}, 1024, []),
        ("llava", {"max_new_tokens": 8, "until": "ASSISTANT:"}, 8, []),
        ("llava_next", {"max_new_tokens": None, "until": None}, 1024, []),
        ("unheard of", {"until": ["a"], "temperature": 0.0, "do_sample": False, "num_beams": 1, "top_p": 1.0}, 1024, []),
        (QWEN, {"temperature": None, "num_beams": None}, 32768, []),
        (QWEN, {"max_new_tokens": 8, "until": "ASSISTANT:"}, 8, ["ASSISTANT:"]),
        (QWEN, {"until": ("a", BLANK_LINE, "", None)}, 32768, ["a"]),
    ],
)
def test_what_a_task_asks_for_is_written_out_as_a_family_follows_it(family, asked, tokens, until) -> None:
    assert greedy(asked, "task 'mine'", family) == {"do_sample": False, "max_new_tokens": tokens, "until": until}


def test_what_lmms_eval_fills_in_is_asked_too() -> None:
    assert asked_by({}) == {"until": BLANK_LINE}
    assert asked_by({"fewshot_delimiter": "\n", "generation_kwargs": {"max_new_tokens": 2}}) == {
        "until": "\n",
        "max_new_tokens": 2,
    }
    special = {"default": {"max_new_tokens": 3}, "llava": {"max_new_tokens": 4}}
    assert asked_by({"generation_kwargs": {"until": "."}, "model_specific_generation_kwargs": special}) == {
        "until": ".",
        "max_new_tokens": 3,
    }


@pytest.mark.parametrize(
    ("asked", "kind"),
    [({"do_sample": True}, "sampling"), ({"temperature": "0.2"}, "sampling"), ({"num_beams": 3}, "beam search")],
)
def test_what_is_not_greedy_is_refused(asked, kind) -> None:
    with pytest.raises(UserError, match=f"task 'mine' asks for {kind}; .*override its generation_kwargs"):
        greedy(asked, "task 'mine'", "llava")

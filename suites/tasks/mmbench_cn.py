"""MMBench in Chinese by rule: lmms-eval's questions and prompts, and the evaluation of its English task without a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval.tasks.mmbench.cn_utils import (
    mmbench_doc_to_text,
    mmbench_doc_to_visual,
    mmbench_evaluator,
    mmbench_process_results,
)

__all__ = ["circular_accuracy", "mmbench_doc_to_text", "mmbench_doc_to_visual", "mmbench_process_results"]


def circular_accuracy(results: Sequence[Mapping[str, Any]]) -> float:
    """Per cent of the questions of which every rotation is answered rightly; answers without a letter are wrong."""
    overall, _, _ = mmbench_evaluator.eval_result(results, eval_method="static")
    return 100 * float(overall)

"""What is taken from lmms-eval: imported in one place, which keeps what importing it does to the process from the host."""

from __future__ import annotations

from functools import cache

from vtpbench.harness.host.images import pillow_settings
from vtpbench.harness.host.libraries import importing_lmms_eval

with importing_lmms_eval(), pillow_settings():  # lmms-eval lets Pillow show pictures that are cut off
    from lmms_eval import evaluator
    from lmms_eval.api.model import lmms
    from lmms_eval.tasks import TaskManager, get_task_dict
    from lmms_eval.utils import load_yaml_config

# It asks git for its own commit in four processes for every evaluation.
evaluator.get_git_commit_hash = cache(evaluator.get_git_commit_hash)
evaluator.get_git_branch_name = cache(evaluator.get_git_branch_name)
simple_evaluate = evaluator.simple_evaluate

__all__ = ["TaskManager", "get_task_dict", "lmms", "load_yaml_config", "simple_evaluate"]

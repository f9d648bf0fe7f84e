"""What is taken from lmms-eval: imported in one place, which keeps what importing it does to the process from the host."""

from __future__ import annotations

from vtpbench.harness.host.images import pillow_settings
from vtpbench.harness.host.libraries import importing_lmms_eval

with importing_lmms_eval(), pillow_settings():  # lmms-eval lets Pillow show pictures that are cut off
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager, get_task_dict
    from lmms_eval.utils import load_yaml_config

__all__ = ["TaskManager", "get_task_dict", "lmms", "load_yaml_config", "simple_evaluate"]

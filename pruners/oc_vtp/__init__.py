"""OC-VTP: slot attention, trained once without the language model, chooses the vision tokens that stand for objects."""

from vtpbench.pruners.oc_vtp.pruner import OCVTP

__all__ = ["OCVTP"]

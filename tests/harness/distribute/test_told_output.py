from __future__ import annotations

import logging
import warnings
from pathlib import Path

from vtpbench.harness.distribute.told_output import ToldOutput


def test_every_whole_line_is_handed_on_once_under_the_name_of_its_log(tmp_path: Path) -> None:
    output = ToldOutput(tmp_path / "logs")
    assert list(output.new()) == [], "nothing was said"
    with output.kept("sweep-a"):
        print("outside")
        with output.kept("a"):
            print("inside")
            logging.getLogger("transformers").warning("careful")
        print("begun ", end="", flush=True)
        assert dict(output.new()) == {"a": "inside\nWARNING transformers: careful\n", "sweep-a": "outside\n"}
        assert list(output.new()) == []
        print("and ended: ü")
    with output.kept("a"), warnings.catch_warnings(record=False):
        warnings.simplefilter("always")
        warnings.warn("at last", stacklevel=1)
    told = dict(output.new())
    assert told["sweep-a"] == "begun and ended: ü\n"
    assert "at last" in told["a"]
    assert "inside" not in told["a"]

from __future__ import annotations

import logging
import sys
from pathlib import Path

from vtpbench.harness.distribute.told_output import ToldOutput


def test_every_whole_line_is_handed_on_once_under_the_name_of_its_log(tmp_path: Path) -> None:
    output = ToldOutput(tmp_path / "logs")
    assert list(output.new()) == [], "nothing was said"
    with output.kept("sweep-a"):
        print("outside")
        with output.kept("a"):
            print("inside")
            logging.getLogger("a library").warning("careful")
        print("begun ", end="", flush=True)
        assert dict(output.new()) == {"a": "inside\nWARNING a library: careful\n", "sweep-a": "outside\n"}
        assert list(output.new()) == []
        print("and ended: ü")
    with output.kept("a"):
        print("at last", file=sys.stderr)
    assert dict(output.new()) == {"a": "at last\n", "sweep-a": "begun and ended: ü\n"}

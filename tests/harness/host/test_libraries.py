from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path

import datasets
import pytest
import transformers
from loguru import logger

from vtpbench.harness.host.files import StorageError
from vtpbench.harness.host.libraries import output_to, without_progress_bars

IN_LMMS_EVAL = {"__name__": "lmms_eval.tasks.some.utils", "logger": logger}


@pytest.fixture
def sink() -> Iterator[list[str]]:
    """Lines of a sink that the host added to loguru."""
    heard: list[str] = []
    number = logger.add(lambda line: heard.append(str(line)), format="{message}")
    yield heard
    logger.remove(number)


@pytest.fixture
def handler() -> Iterator[list[str]]:
    """Lines of a handler that the host added to `logging`."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    for name in ("", "transformers"):
        logging.getLogger(name).addHandler(handler)
    yield heard
    for name in ("", "transformers"):
        logging.getLogger(name).removeHandler(handler)


def speak() -> None:
    print("printed")
    print("to stderr", file=sys.stderr)
    logging.getLogger("mine").warning("logged")
    transformers.logging.get_logger("transformers.models.some").warning("by a library")
    logger.info("by loguru")
    warnings.warn("careful", stacklevel=1)


def test_what_is_said_is_in_the_file_and_not_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(), output_to(tmp_path / "logs" / "a.log"):
        warnings.simplefilter("always")
        warnings.showwarning = _as_python_does  # pytest has put its own there
        speak()
    lines = (tmp_path / "logs" / "a.log").read_text().splitlines()
    assert lines[:2] == ["printed", "to stderr"]
    assert "WARNING mine: logged" in lines
    assert "WARNING transformers.models.some: by a library" in lines
    assert any(line.startswith("INFO ") and line.endswith(": by loguru") for line in lines)
    assert any(line.endswith("UserWarning: careful") for line in lines)
    assert len(lines) == len(set(lines)), "nothing twice"
    shown = capsys.readouterr()
    assert "printed" not in shown.out
    assert not [line for line in shown.err.splitlines() if "by loguru" not in line], "the host has a sink on stderr"


def _as_python_does(message: object, category: type[Warning], filename: str, lineno: int, *rest: object) -> None:
    print(f"{filename}:{lineno}: {category.__name__}: {message}", file=sys.stderr)


def test_where_nothing_is_said_is_no_file_and_an_old_one_goes(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("of an earlier attempt")
    with output_to(tmp_path / "a.log"):
        print()
        print("\r 50%|#####     | 1/2", end="", file=sys.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_was_begun_is_kept_and_progress_bars_are_not(tmp_path: Path) -> None:
    with output_to(tmp_path / "a.log"):
        print("\r 50%|#####     | 1/2", end="", file=sys.stderr)
        print("a", end="")
        print("\n", file=sys.stderr)
        print("b", end="")
    assert (tmp_path / "a.log").read_text() == "ab\n"


def test_inside_another_block_only_the_file_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with output_to(tmp_path / "outer.log"):
        print("begun", end="")
        outer = sys.stdout
        with output_to(tmp_path / "inner.log"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            speak()
            print("also begun", end="")
            held = sys.stdout
        print("afterwards")
        print("held", file=held)
        assert sys.stdout is outer
    said = (tmp_path / "inner.log").read_text().splitlines()
    assert {"printed", "WARNING mine: logged"} <= set(said)
    assert said[-1] == "also begun"
    assert any(line.endswith(": by loguru") for line in said)
    assert (tmp_path / "outer.log").read_text().splitlines() == ["begun", "afterwards", "held"]
    print("on the terminal")
    assert capsys.readouterr().out == "on the terminal\n"


def test_streams_that_somebody_puts_there_meanwhile_are_taken_as_the_host_s(tmp_path: Path) -> None:
    own = io.StringIO()
    with output_to(tmp_path / "outer.log"), redirect_stdout(own):
        with output_to(tmp_path / "inner.log"):
            print("inner")
        print("own")
    assert own.getvalue() == "own\n"
    assert (tmp_path / "inner.log").read_text() == "inner\n"


def test_the_host_s_logging_is_as_it_was(
    tmp_path: Path, sink: list[str], handler: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = _state()
    with suppress(ZeroDivisionError), output_to(tmp_path / "a.log"), without_progress_bars():
        assert datasets.are_progress_bars_disabled()
        logger.info("inside")
        logging.getLogger("mine").warning("inside")
        exec("logger.warning('of lmms-eval')", IN_LMMS_EVAL)
        raise ZeroDivisionError
    assert _state() == before
    assert sink == ["inside\n"]
    assert handler == ["inside"]
    exec("logger.warning('of lmms-eval')", IN_LMMS_EVAL)
    logger.info("afterwards")
    logging.getLogger("mine").warning("afterwards")
    print("printed")
    assert sink[1:] == ["of lmms-eval\n", "afterwards\n"]
    assert handler[1:] == ["afterwards"]
    assert capsys.readouterr().out == "printed\n"
    assert "afterwards" not in (tmp_path / "a.log").read_text()


def _state() -> list[object]:
    loggers = [logging.getLogger(name) for name in ("", "transformers", "datasets", "huggingface_hub")]
    handlers = [sorted(map(id, each.handlers)) for each in loggers]
    levels = [each.level for each in loggers]
    bars = datasets.are_progress_bars_disabled(), transformers.logging.is_progress_bar_enabled()
    return [handlers, levels, bars, transformers.logging.get_verbosity(), sys.stdout, sys.stderr, repr(logger)]


def test_bars_that_the_host_has_switched_off_stay_off() -> None:
    datasets.disable_progress_bars()
    try:
        with without_progress_bars():
            pass
        assert datasets.are_progress_bars_disabled()
    finally:
        datasets.enable_progress_bars()


def test_a_handler_that_was_made_meanwhile_is_heard_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = logging.getLogger("made-meanwhile")
    with output_to(tmp_path / "a.log"):
        handler = logging.StreamHandler()
        mine.addHandler(handler)
    mine.warning("afterwards")
    mine.removeHandler(handler)
    assert capsys.readouterr().err.splitlines()[0] == "afterwards"


def test_a_disk_that_refuses_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    with pytest.raises(StorageError, match="cannot write"), output_to(tmp_path / "logs" / "a.log"):
        print("said")


def test_where_an_inner_file_refuses_the_outer_one_is_heard_again(tmp_path: Path) -> None:
    def refused() -> None:
        with output_to(tmp_path / "inner.log"):
            (tmp_path / "inner.log").mkdir()
            print("begun", end="")

    with output_to(tmp_path / "outer.log"):
        with pytest.raises(StorageError, match="cannot write"):
            refused()
        print("outer")
    assert (tmp_path / "outer.log").read_text() == "outer\n"


HOST = """
import sys
from loguru import logger
logger.remove()
heard = []
logger.add(heard.append, format="{message}")
import warnings
import vtpbench.harness.run.engine
warnings.warn("heard")
from lmms_eval.evaluator import eval_logger
logger.info("mine")
eval_logger.info("theirs")
eval_logger.warning("warned")
print([str(line) for line in heard], eval_logger is logger, sys.modules["loguru"].logger is logger)
"""


def test_importing_lmms_eval_leaves_the_host_s_sinks_alone() -> None:
    shown = subprocess.run([sys.executable, "-c", HOST], capture_output=True, text=True, check=True, env=os.environ)
    assert shown.stdout.splitlines()[-1] == "['mine\\n'] False True"
    assert "WARNING __main__: warned" in shown.stderr
    assert "UserWarning: heard" in shown.stderr
    assert "theirs" not in shown.stderr

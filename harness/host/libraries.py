"""What libraries and pruners say while a cell is measured: kept in a file, away from the terminal, and undone afterwards.

The host, say a notebook, may have logging of its own. Whatever is changed here is changed for the time of a `with` block, and by
name: the host's handlers and sinks, their levels and the verbosity of libraries are never touched.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from vtpbench.harness.host.files import writing

LMMS_EVAL = "lmms_eval"
LOGGERS = ("transformers", "datasets", "huggingface_hub", LMMS_EVAL)
"""Of `logging`, of libraries that bring handlers of their own, which write to the terminal."""
LINE, LOGURU_LINE = "%(levelname)s %(name)s: %(message)s", "{level} {name}: {message}"


class OutputFile:
    """Lines that were said; the file is made when the first comes, and is none where nothing is said."""

    def __init__(self, path: Path, append: bool = False) -> None:
        self.path = path
        if not append:
            with writing(path):
                path.unlink(missing_ok=True)  # of an earlier attempt

    def add(self, text: str) -> None:
        """Write lines that are not blank; raises `StorageError` where the disk refuses."""
        lines = "".join(f"{line.rstrip()}\n" for line in text.split("\n") if line.strip())
        if lines:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                    stream.write(lines)


class Output:
    """Where what is said goes at the time."""

    def __init__(self, file: OutputFile) -> None:
        self.file = file
        self.streams = OutputStream(sys.stdout, self), OutputStream(sys.stderr, self)

    @classmethod
    def current(cls) -> Output | None:
        """Give the one that has both streams; None where they are the host's, or somebody has put others there."""
        output = sys.stdout.output if isinstance(sys.stdout, OutputStream) else None
        return output if output is not None and sys.stderr is output.streams[1] else None

    def add(self, text: object) -> None:
        """Write lines."""
        self.file.add(str(text))

    @contextmanager
    def at(self, file: OutputFile) -> Iterator[None]:
        """Let another file have what is said meanwhile; lines that were begun end where they began."""
        before = self.file
        self._end_lines()
        self.file = file
        with ExitStack() as stack:
            stack.callback(setattr, self, "file", before)
            stack.callback(self._end_lines)
            yield

    def _end_lines(self) -> None:
        with ExitStack() as stack:
            for stream in self.streams:
                stack.callback(stream.end_line)


class OutputStream(io.TextIOBase):
    """Stands for stdout or stderr: what is written goes to a file until `release`, and then to the stream behind it.

    A library that is first imported meanwhile may hold on to it, and must be heard afterwards, too.
    """

    def __init__(self, behind: Any, output: Output) -> None:
        self._behind, self._rest = behind, ""
        self.output: Output | None = output

    def write(self, text: str) -> int:
        """Write whole lines; what begins with a carriage return is a progress bar, and is left out."""
        if self.output is None:
            return int(self._behind.write(text))
        if not text.startswith("\r"):
            lines, newline, self._rest = (self._rest + text).rpartition("\n")
            self.output.add(lines + newline)
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind; the file has every line already."""
        if self.output is None:
            self._behind.flush()

    def end_line(self) -> None:
        """Write the line that was begun."""
        rest, self._rest = self._rest, ""
        if self.output is not None:
            self.output.add(rest)

    def release(self) -> None:
        """Write the line that was begun, and step aside."""
        try:
            self.end_line()
        finally:
            self.output = None


@contextmanager
def output_to(path: Path, append: bool = False) -> Iterator[None]:
    """Keep what is printed, warned and logged in a file, new unless it is to `append`, away from the terminal.

    Inside another such block only the file changes until the inner one ends. Sinks of loguru and handlers of `logging` that the
    host added hear the same as ever, but for the lines of lmms-eval. Progress bars are left out.
    """
    from loguru import logger  # before stderr is another: its first sink writes there

    file = OutputFile(path, append)
    if (outer := Output.current()) is not None:
        with outer.at(file):
            yield
        return
    output = Output(file)
    with ExitStack() as stack:
        _take_logging(output, stack)
        for stream in output.streams:
            stack.callback(stream.release)
        sink = logger.add(output.add, format=LOGURU_LINE, level="DEBUG", catch=False)
        stack.callback(logger.remove, sink)
        logger.disable(LMMS_EVAL)
        stack.callback(logger.enable, LMMS_EVAL)
        stack.enter_context(redirect_stdout(output.streams[0]))
        stack.enter_context(redirect_stderr(output.streams[1]))
        yield


def _take_logging(output: Output, stack: ExitStack) -> None:
    """Add an output to the handlers of `logging`, and take the terminal from the handlers of libraries."""
    handler = _OutputHandler(output)
    for logger in (logging.getLogger(), *map(logging.getLogger, LOGGERS)):
        if logger.name in LOGGERS:
            for other in filter(_is_terminal, list(logger.handlers)):
                logger.removeHandler(other)
                stack.callback(logger.addHandler, other)
        if logger.name == "root" or not logger.propagate:
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)


class _OutputHandler(logging.Handler):
    """Adds the lines of `logging` to an output."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(LINE))
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Add a line."""
        self._output.add(self.format(record))


def _is_terminal(handler: logging.Handler) -> bool:
    """Whether a handler writes to stdout or stderr, or to what stood for them as its library was imported."""
    stream = getattr(handler, "stream", None)
    return isinstance(stream, OutputStream) or stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Let datasets and transformers show no bars, which are no text in a notebook."""
    import datasets
    import transformers

    with ExitStack() as stack:
        if not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        if transformers.logging.is_progress_bar_enabled():
            transformers.logging.disable_progress_bar()
            stack.callback(transformers.logging.enable_progress_bar)
        yield


@contextmanager
def without_load_counts() -> Iterator[None]:
    """Let datasets not tell a server on the internet whenever a table is read: it would wait where none can be reached."""
    from datasets import config

    before, config.HF_UPDATE_DOWNLOAD_COUNTS = config.HF_UPDATE_DOWNLOAD_COUNTS, False
    try:
        yield
    finally:
        config.HF_UPDATE_DOWNLOAD_COUNTS = before


@contextmanager
def importing_lmms_eval() -> Iterator[None]:
    """Keep what lmms-eval does to the process, whose modules are first imported inside, from the host.

    Some of them switch all warnings off, and remove every sink of the loguru that they find. So they get a loguru of their own,
    whose warnings go to stderr as it then is; those of a later import get another.
    """
    import loguru  # noqa: F401 - the host's, which must be there afterwards

    hosts = _forget_loguru()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for name, module in _forget_loguru().items():
            if name == "loguru":
                module.logger.remove()
                module.logger.add(lambda line: sys.stderr.write(line), format=LOGURU_LINE, level="WARNING")
        sys.modules.update(hosts)


def _forget_loguru() -> dict[str, ModuleType]:
    """Take loguru from the modules that are imported; gives what was there."""
    names = [name for name in sys.modules if name.partition(".")[0] == "loguru"]
    return {name: sys.modules.pop(name) for name in names}

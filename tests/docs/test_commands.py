"""Every command on a page is one: its options exist, what it must be given is given, the files that it names are there."""

import re
import shlex
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import typer

from vtpbench.harness.cli.main import Misuse, app

documents = SimpleNamespace(**run_path(str(Path(__file__).with_name("documents.py"))))
ROOT, PAGES = documents.ROOT, documents.PAGES
MAKEFILE = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def fault(words: list[str], whole: bool) -> str:
    """What is wrong with a call of vtpbench, if anything; files need not be there, and a sentence may leave things out."""
    command, context = typer.main.get_command(app), None
    try:
        while True:
            context = command.make_context(words[0], words[1:], parent=context)
            if not hasattr(command, "commands"):
                return ""
            left = [*context._protected_args, *context.args]
            if not left:
                return "" if not whole else "no command"
            _, command, rest = command.resolve_command(context, left)
            words = [left[0], *rest]
    except typer.Exit:  # --version
        return ""
    except Misuse as e:
        kind, message = type(e).__name__, e.format_message()
        absent = kind == "BadParameter" and "does not exist" in message
        unfinished = not whole and kind in ("MissingParameter", "NoArgsIsHelpError")
        return "" if absent or unfinished else f"{kind}: {message}"


def wrong(command: str, whole: bool) -> str:
    words = shlex.split(command.replace(" ...", ""), comments=True)
    if words[0] == "vtpbench":
        return fault(words, whole)
    if words[0] == "make":
        return "" if set(words[1:]) <= MAKEFILE else "no such target"
    if words[1] == "-m":
        ours = ROOT / f"{words[2].removeprefix('vtpbench.').replace('.', '/')}.py"
        return "" if words[2] in ("venv", "pytest", "vtpbench", "build", "lmms_eval") or ours.is_file() else "no such module"
    scripts = [word for word in words[1:] if word.endswith(".py")]
    places = (ROOT, ROOT / "examples", *(ROOT / "examples").iterdir())
    return "" if all(any((place / script).is_file() for place in places) for script in scripts) else "no such script"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_can_be_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = {command: wrong(command, whole) for command, whole in documents.commands(page)}
    assert not {command: what for command, what in found.items() if what}


@pytest.mark.parametrize(
    "command",
    ["vtpbench run demo --ou x", "vtpbench runn demo", "vtpbench report --format", "vtpbench show --budget 3", "make tset"],
)
def test_a_mistake_would_be_found(command: str) -> None:
    assert wrong(command, True)


def test_pages_show_commands() -> None:
    assert sum(1 for page in PAGES for _ in documents.commands(page)) > 150

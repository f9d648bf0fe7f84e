"""Links between pages lead somewhere, on disk and on the site, and every page can be found."""

import ast
import re
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import yaml

documents = SimpleNamespace(**run_path(str(Path(__file__).with_name("documents.py"))))
ROOT = documents.ROOT
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """Give the names that headings have as targets."""
    titles = re.findall(r"^#+ (.+)$", documents.FENCE.sub("", page.read_text()), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)).strip().lower() for title in titles)
    return {re.sub(r"\s+", "-", title) for title in words}


@pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(documents.prose(page)):
        file = (page.parent / target) if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_every_page_is_on_the_site_and_in_the_readme() -> None:
    groups = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = {name for group in groups for pages in group.values() for page in pages for name in page.values()}
    written = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert {name for name in listed if (ROOT / "docs" / name).is_file()} == written
    joined = constant(ROOT / ".ci" / "site_pages.py", "PAGES")
    assert listed - written == set(joined.values())
    assert all((ROOT / source).is_file() for source in joined)
    linked = {target for target, _ in LINK.findall((ROOT / "README.md").read_text())}
    assert {f"docs/{name}" for name in written} <= linked


def constant(file: Path, name: str) -> dict[str, str]:
    """Read a constant of a module that imports MkDocs, which need not be installed here."""
    tree = ast.parse(file.read_text())
    found = next(node.value for node in tree.body if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name)
    return dict(ast.literal_eval(found))

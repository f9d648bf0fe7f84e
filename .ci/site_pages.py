"""Hooks of MkDocs: pages that lie outside docs/ join the site, and links between the two lead there."""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "suites/demo/model/README.md": "suites/demo/model/README.md",
    "suites/demo/model/oc-vtp.md": "suites/demo/model/oc-vtp.md",
}
"""From the repository's root, and where on the site."""
FILES = ("CITATION.cff", "examples/python_api.py", "suites/demo/model/oc-vtp.csv", "suites/demo/model/oc-vtp.png")
"""What pages link to as it is."""
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files from outside docs/."""
    for source, target in PAGES.items() | {(name, name) for name in FILES}:
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write links, which are right in the repository, as they are right on the site."""
    del config, files
    site = page.file.src_uri
    source = next((source for source, target in PAGES.items() if target == site), f"docs/{site}")

    def moved(link: re.Match[str]) -> str:
        target = normpath(f"{Path(source).parent.as_posix()}/{link[1]}")
        place = PAGES.get(target, target.removeprefix("docs/"))
        return relpath(place, Path(site).parent.as_posix())

    return LINK.sub(moved, markdown)

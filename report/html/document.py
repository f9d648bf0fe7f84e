"""One file for a browser, from a template: its style, its script and a policy that allows nothing else."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

SCRIPTS = (
    "core.js",
    "table.js",
    "chart_layout.js",
    "chart.js",
    "accuracy_chart.js",
    "time_chart.js",
    "batch_chart.js",
    "gallery.js",
    "samples.js",
    "compare.js",
    "start.js",
)
"""Parts of the one script, in order."""
_HARMLESS = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render(template: str, *, kind: str, home: str = "", gallery: Markup | None = None, **facts: Any) -> str:
    """Fill a template that extends the layout.

    Parameters
    ----------
    template : name of a file beside this one
    kind : what the page is, for its head
    home : where its head leads; empty for nowhere
    gallery : pictures of kept tokens, as `embed` gives them
    facts : what the template asks for; texts are escaped

    """
    style, script = _asset("page.css"), "\n".join(_asset(name) for name in SCRIPTS)
    page = _environment().get_template(template)
    head = {"kind": kind, "home": home, "gallery": gallery, "policy": _policy(style, script)}
    return page.render(**head, style=Markup(style), script=Markup(script), **facts) + "\n"  # these two are ours, not data


@cache
def _environment() -> Environment:
    options: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    return Environment(loader=FunctionLoader(_asset), autoescape=True, **options)


def embed(value: Any) -> Markup:
    """Write JSON that no HTML parser can take for the end of its `<script>`, for a comment or for a tag."""
    return Markup(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_HARMLESS))


def _policy(style: str, script: str) -> str:
    """Content security policy: this very style and script, nothing else, and no markup made of strings."""
    hashes = (b64encode(sha256(text.encode()).digest()).decode() for text in (style, script))
    style_hash, script_hash = (f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; style-src {style_hash}; script-src {script_hash}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _asset(name: str) -> str:
    """Read a file beside this one; without the last newline, so that what is hashed is what stands between the tags."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8").rstrip("\n")

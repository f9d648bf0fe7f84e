"""JSON from files that anybody may have written: whatever it holds, it is read or refused in one way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

DEEPEST = 64
"""Lists and objects inside each other."""
LARGEST_BYTES = 1 << 27
"""Of a file that is read as JSON."""


class BadJson(ValueError):
    """A text is no JSON that can be used; the message says why."""


def parse_json(text: str, *, finite: bool = True) -> Any:
    """Read JSON that can be written again: finite numbers of usual length, texts that are Unicode, no endless nesting.

    `finite` says whether Python's `NaN` and `Infinity` are refused.

    Raises
    ------
    BadJson : it is none

    """
    try:
        value = json.loads(text, parse_constant=_refuse if finite else float)
        _refuse_depth(value)
        text.encode() if "\\u" not in text else json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as e:
        raise BadJson("nested too deeply") from e
    except UnicodeEncodeError as e:
        raise BadJson("a text is not Unicode") from e
    except BadJson:
        raise
    except ValueError as e:  # also a number of too many digits
        raise BadJson(f"not readable as JSON (truncated?): {e}") from e
    return value


def load_json(path: Path, *, finite: bool = True) -> Any:
    """Read a JSON file as `parse_json` does; raises `BadJson`, whose message does not name the file."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise BadJson("no regular file")
        if path.stat().st_size > LARGEST_BYTES:
            raise BadJson(f"larger than {LARGEST_BYTES >> 20} MiB")
        return parse_json(path.read_text(encoding="utf-8"), finite=finite)
    except (OSError, UnicodeDecodeError) as e:
        raise BadJson(f"not readable as JSON (truncated?): {e}") from e


def _refuse(word: str) -> NoReturn:
    raise BadJson(f"{word} is no number of JSON")


def _refuse_depth(value: Any) -> None:
    """Walk level by level, without recursion."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise BadJson("nested too deeply")
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]

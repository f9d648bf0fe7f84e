"""Text as a terminal may get it: whatever files hold, nothing of it moves the cursor, colours, hides or reorders."""

from __future__ import annotations

import json
import re
import unicodedata

_PLAIN = re.compile(r"[\n\t -~]*")
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_WELCOME = "\n\t\u200c\u200d"  # joiners belong to the spelling of some scripts


def printable(text: str) -> str:
    r"""Spell out the characters that a terminal would act upon, as JSON does: `\u001b`; lines and tabulators stay.

    What is JSON stays the same JSON.
    """
    if _PLAIN.fullmatch(text):
        return text
    return "".join(c if c in _WELCOME or unicodedata.category(c) not in _UNSEEN else json.dumps(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    r"""Spell out line ends, too, so that a name cannot pass for a line of its own."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")

"""Pictures of kept tokens: what the page embeds of them, each picture and each division into tokens once."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any, TypeAlias

from markupsafe import Markup

from vtpbench.report.html.document import embed

ReadPicture: TypeAlias = Callable[[str], "bytes | None"]
"""Gives the JPEG of a picture that a per-sample table names, or None where there is none."""
MOST = 400
"""Pictures on a page."""
_SIZE = re.compile(r"[0-9a-f]{16}-(\d+)x(\d+)")


class EmbeddedPictures:
    """Collects the pictures of a page while its samples are read."""

    def __init__(self, read: ReadPicture) -> None:
        self._read = read
        self._pictures: dict[str, str | None] = {}
        self._token_places: dict[str, list[Any]] = {}

    def add(self, kept: str) -> list[Any]:
        """Take in what a per-sample table says in its column `kept`; returns what a sample of the page refers to it by.

        Returns
        -------
        For each image `[place, vision tokens before pruning, [[layer, kept tokens], ...]]`; images whose picture is
        missing, or one too many for the page, are left out.

        """
        found = []
        for image in json.loads(kept) if kept else []:
            place = self._place(image["picture"], image["tiles"])
            if place is not None:
                found.append([place, int(image["tokens"]), [[int(at), list(map(int, ids))] for at, ids in image["cuts"]]])
        return found

    def data(self) -> dict[str, Any]:
        """Hand out what samples refer to: pictures by name as base64, and places `[picture, width, height, tiles]`."""
        pictures = {name: jpeg for name, jpeg in self._pictures.items() if jpeg is not None}
        return {"pictures": pictures, "places": [place for _, *place in self._token_places.values()]}

    def embedded(self) -> Markup | None:
        """Write the same for a page; None where no sample refers to it."""
        data = self.data()
        return embed(data) if data["places"] else None

    def _place(self, name: str, tiles: list[Any]) -> int | None:
        """Find or give the number of a place; None where its picture cannot be shown."""
        size = _SIZE.fullmatch(name)
        if size is None or not self._has(name):
            return None
        edges = [[list(map(_short, side)) for side in tile] for tile in tiles]
        key = f"{name} {edges}"
        number: int = self._token_places.setdefault(key, [len(self._token_places), name, *map(int, size.groups()), edges])[0]
        return number

    def _has(self, name: str) -> bool:
        if name not in self._pictures and len(self._pictures) < MOST:
            jpeg = self._read(name)
            self._pictures[name] = None if jpeg is None else b64encode(jpeg).decode()
        return self._pictures.get(name) is not None


def _short(edge: float) -> float:
    """Drop the point of a whole number."""
    return int(edge) if float(edge).is_integer() else float(edge)

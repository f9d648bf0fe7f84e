"""YAML that remembers where everything stands, so that an error can name the file, the line and the key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from vtpbench.harness.suite.bounded_yaml import (
    DEEPEST,
    BoundedConstructor,
    compose,
    construct,
    descendants,
    not_yaml,
    place_of,
    shortened,
)
from vtpbench.pruners.errors import UserError, did_you_mean

M = TypeVar("M", bound=BaseModel)
Key = str | int
LARGEST = 2**31
"""Of a count, a limit or a seed."""


class Strict(BaseModel):
    """Base of everything that users write: frozen, no coercion, unknown keys answered with the nearest valid one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, Mapping) else ():
            if key not in cls.model_fields:
                reject(f"unknown key '{key}'; {did_you_mean(str(key), cls.model_fields)}", key)
        return data


def reject(message: str, *at: Key) -> NoReturn:
    """Refuse a value from within a validator; `at` leads from the validated object to the culprit."""
    raise PydanticCustomError("rejected", "{text}", {"text": message, "at": at})


def filled_list(value: Any) -> Any:
    """Validate, before its items, that a value is a list with something in it."""
    if not isinstance(value, (list, tuple)):
        reject("expected a list, and nothing is there" if value is None else f"expected a list: [{value!s:.60}]")
    if not value:
        reject("the list is empty; give at least one item")
    return value


class Document:
    """One YAML file as a tree of nodes with their places.

    Parameters
    ----------
    text : content of the file
    name : what errors call it

    Raises
    ------
    UserError : not YAML, several documents, or a key that is given twice

    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        root = compose(text, name)
        if not isinstance(root, MappingNode):
            raise UserError(f"{name}:1: expected `key: value` lines" + ("" if text.strip() else "; the file is empty"))
        self._root: Node = root
        mappings = [node for node in descendants(root) if isinstance(node, MappingNode)]
        for node in mappings:  # before any merge, which brings keys that may stand twice
            _refuse_duplicates(node)
        for node in mappings:
            _merge(node, name)

    def override(self, setting: str, source: str = "") -> None:
        """Apply one `key=value`: a dotted key (list items by number), a YAML value; errors then name `source`, an option."""
        source = source or f"--set {setting}"
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{source}: write key=value, e.g. --set limit=50")
        parts = key.strip().split(".")
        if len(parts) > DEEPEST:
            raise UserError(f"{source}: a key has at most {DEEPEST} parts")
        value = compose(text, source) or ScalarNode("tag:yaml.org,2002:null", "")
        self._root = _replace(self._root, parts, value, source)

    def where(self, *path: Key) -> str:
        """Place of a key or list item, `file:line`; the nearest enclosing one where it is not written out."""
        return place_of(self._find(path), self.name)

    def validate(self, model: type[M], context: Mapping[str, Any]) -> M:
        """Check the content against a model; raises `UserError` for the first mistake in the file."""
        data = construct(self._root, self.name)
        try:
            return model.model_validate(data, context=dict(context))
        except ValidationError as e:
            first = min(e.errors(), key=lambda error: _line(self._find(_path(error))))
            raise UserError(f"{self.where(*_path(first))}: {_message(first)}") from e

    def _find(self, path: tuple[Key, ...]) -> Node:
        """Follow a path as far as it is written; short forms (`- fastv: {layer: 3}`) leave some of its steps out."""
        node = place = self._root
        skipped: Key | None = None
        for part in path:
            child = _child(node, part)
            if child is None:
                skipped = part
            else:
                (place, node), skipped = child, None
        if isinstance(skipped, str):
            deeper = (_child(inner, skipped) for inner in descendants(node))
            return next((found[0] for found in deeper if found), place)
        return place


def _merge(node: MappingNode, name: str) -> None:
    """Resolve the `<<` keys of a mapping in place."""
    try:
        BoundedConstructor().flatten_mapping(node)
    except yaml.YAMLError as e:
        raise not_yaml(e, name) from e


def _refuse_duplicates(node: MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, ScalarNode):
            if key.value in seen:
                raise UserError(f"{place_of(key, '')}: key '{key.value}' is given twice")
            seen.add(key.value)


def _child(node: Node, part: Key) -> tuple[Node, Node] | None:
    """Step down: the node that marks the place, and the value; the last of equal keys wins, as in a merge."""
    if isinstance(node, MappingNode):
        for key, value in reversed(node.value):
            if isinstance(key, ScalarNode) and key.value == str(part):
                return key, value
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _replace(node: Node, parts: list[str], value: Node, source: str) -> Node:
    """Copy the nodes along a path with another value at its end; aliases of the old nodes stay as they were."""
    if not parts:
        return value
    head, rest = parts[0], parts[1:]
    if isinstance(node, MappingNode):
        child = _child(node, head)
        inner = child[1] if child else MappingNode("tag:yaml.org,2002:map", [])
        key = ScalarNode("tag:yaml.org,2002:str", head, value.start_mark)
        kept = [pair for pair in node.value if pair[0].value != head]
        return MappingNode(node.tag, [*kept, (key, _replace(inner, rest, value, source))], node.start_mark)
    if isinstance(node, SequenceNode):
        if not (head.isdecimal() and len(head) < 10) or int(head) >= len(node.value):
            fix = f"name an item by its number, 0 to {len(node.value) - 1}, or set the whole list"
            raise UserError(f"{source}: '{head}' stands where a list is; {fix}")
        items = [_replace(item, rest, value, source) if i == int(head) else item for i, item in enumerate(node.value)]
        return SequenceNode(node.tag, items, node.start_mark)
    raise UserError(f"{source}: cannot set '{head}' inside the single value '{node.value}'")


def _line(node: Node) -> int:
    return -1 if node.start_mark is None else int(node.start_mark.line)


def _path(error: ErrorDetails) -> tuple[Key, ...]:
    path = error["loc"] + tuple(error.get("ctx", {}).get("at", ()))
    return path[:-1] if error["type"] == "missing" else path


def _message(error: ErrorDetails) -> str:
    if error["type"] == "rejected":
        return error["msg"]
    if error["type"] == "missing":
        return f"key '{error['loc'][-1]}' is missing"
    names = ".".join(str(part) for part in error["loc"])
    if error["type"] == "model_type":
        return f"{names}: expected `key: value` entries, not {shortened(error['input'])}"
    return f"{names}: {error['msg'][0].lower()}{error['msg'][1:]}, not {shortened(error['input'])}"

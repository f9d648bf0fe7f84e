"""YAML as nodes and as values, within bounds: whatever a file holds, it is read or refused in one line, at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from vtpbench.pruners.errors import UserError

LARGEST = 1 << 18
"""Characters of a text."""
DEEPEST = 40
"""Lists and mappings inside each other."""
MOST = 50_000
"""Nodes once every alias is written out."""
BITS = 63
"""Of a whole number."""


class BoundedConstructor(SafeConstructor):
    """Makes plain values of nodes; what PyYAML cannot make a value of is an error that has a place."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """Make the value of a node."""
        try:
            value = super().construct_object(node, deep=deep)
        except yaml.YAMLError:
            raise
        except Exception as e:  # a date that is none, `!!int abc`, a number of 5,000 digits: PyYAML raises whatever comes
            problem = f"{shortened(node.value)} is no {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, problem, node.start_mark) from e
        if isinstance(value, int) and value.bit_length() > BITS:
            raise ConstructorError(None, None, "this number is too long", node.start_mark)
        return value


def compose(text: str, name: str) -> Node | None:
    """Parse a text into nodes with their places, None for an empty one.

    Raises
    ------
    UserError : it begins with `name`; not YAML, or out of bounds

    """
    if len(text) > LARGEST:
        raise UserError(f"{name}: longer than {LARGEST} characters")
    try:
        loader = yaml.SafeLoader(text)
        loader.name = name
        root = loader.get_single_node()
    except yaml.YAMLError as e:
        raise not_yaml(e, name) from e
    except RecursionError as e:
        raise UserError(f"{name}: lists and mappings are nested too deeply") from e
    except Exception as e:  # an escape or a directive with a number that is none
        raise UserError(f"{name}: not valid YAML: {e}") from e
    if root is not None:
        _refuse_texts(root)
        _refuse_expansion(root)
    return root


def construct(node: Node, name: str, kind: type[BoundedConstructor] = BoundedConstructor) -> Any:
    """Make values of nodes; raises `UserError` that begins with the place."""
    try:
        return kind().construct_document(node)
    except yaml.YAMLError as e:
        raise not_yaml(e, name) from e


def read_value(text: str, name: str, kind: type[BoundedConstructor] = BoundedConstructor) -> Any:
    """Read one YAML value, None for an empty text; raises `UserError` that begins with `name`."""
    node = compose(text, name)
    return None if node is None else construct(node, name, kind)


def not_yaml(error: yaml.YAMLError, name: str) -> UserError:
    """Say in one line what PyYAML says of a text, with its place."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = name if mark is None else f"{mark.name}:{mark.line + 1}"
    return UserError(f"{place}: not valid YAML: {problem or str(error).splitlines()[0]}")


def descendants(root: Node) -> Iterator[Node]:
    """Every node once, in the order of the file; aliases lead back to nodes that were seen."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, MappingNode):
            stack.extend(value for _, value in reversed(node.value))
        elif isinstance(node, SequenceNode):
            stack.extend(reversed(node.value))


def place_of(node: Node, default: str) -> str:
    """Say where a node stands, `file:line`."""
    mark = node.start_mark
    if mark is None:
        return default
    return str(mark.name) if mark.name.startswith("--") else f"{mark.name}:{mark.line + 1}"


def shortened(value: object) -> str:
    """Print a value for an error message."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _refuse_texts(root: Node) -> None:
    """Refuse texts that no path and no file can hold, which escapes can write."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            stack.extend(_children(node))
            if isinstance(node, ScalarNode) and any(c == "\0" or 0xD800 <= ord(c) < 0xE000 for c in node.value):
                raise UserError(f"{place_of(node, '')}: not valid YAML: a text holds a NUL or half a character")


def _refuse_expansion(root: Node) -> None:
    """Refuse nodes that are part of themselves, nested too deeply, or too many once every alias is written out."""
    sizes: dict[int, tuple[int, int]] = {}
    """Nodes and depth of what was visited; on the way through it, an empty depth."""
    stack = [(root, False)]
    while stack:
        node, visited = stack.pop()
        children = _children(node)
        if visited:
            known = [sizes[id(child)] for child in children]
            size, depth = 1 + sum(size for size, _ in known), 1 + max((depth for _, depth in known), default=0)
            if size > MOST or depth > DEEPEST:
                why = f"more than {MOST} values once anchors are written out" if size > MOST else "nested too deeply"
                raise UserError(f"{place_of(node, '')}: not valid YAML: {why}")
            sizes[id(node)] = size, depth
        elif sizes.get(id(node)) == (0, 0):
            raise UserError(f"{place_of(node, '')}: not valid YAML: an anchor stands for something that holds itself")
        elif id(node) not in sizes:
            if children:
                sizes[id(node)] = 0, 0
                stack.append((node, True))
                stack.extend((child, False) for child in children)
            else:
                sizes[id(node)] = 1, 1

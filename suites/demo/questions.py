"""Questions about a scene, in the prompt forms of the official benchmarks they stand for.

`exist` asks as POPE does, `open` as GQA, `choice` as MMBench and SEED, `read` as TextVQA.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from numpy.random import Generator

from vtpbench.suites.demo.scenes import COLOURS, DIGITS, LETTERS, SHAPES, SIZE, Scene, Thing

SHORT = "\nAnswer the question using a single word or phrase."
"""Ends a question that wants a word (GQA, POPE, TextVQA in lmms-eval)."""
LETTER = "\nAnswer with the option's letter from the given choices directly."
"""Ends a multiple-choice question (MMBench, SEED in lmms-eval)."""
TASKS = ("exist", "open", "choice", "read")
_MARGIN = 8  # pixels from the middle line within which "left or right" is not asked


@dataclass(frozen=True)
class SceneQuestion:
    """One question: `text` without the closing instruction, its answer, and the kind of skill it needs."""

    task: str
    text: str
    answer: str
    category: str
    options: tuple[str, ...] = ()

    @property
    def bare(self) -> str:
        """The text with its options, without the closing instruction."""
        return self.text + "".join(f"\n{letter}. {option}" for letter, option in zip("ABCD", self.options, strict=False))

    @property
    def prompt(self) -> str:
        """The text as the model reads it, options and closing instruction included."""
        return self.bare + (LETTER if self.options else SHORT)


def ask(scene: Scene, task: str, rng: Generator) -> list[SceneQuestion]:
    """All questions of one task about a scene, in random order; yes and no are balanced for `exist`."""
    makers = {"exist": _exist, "open": _open, "choice": _choice, "read": _read}
    questions = list(makers[task](scene, rng))
    return [questions[i] for i in rng.permutation(len(questions))]


def _unique(things: tuple[Thing, ...], attribute: str) -> list[Thing]:
    counts = Counter(getattr(t, attribute) for t in things)
    return [t for t in things if counts[getattr(t, attribute)] == 1]


def _exist(scene: Scene, rng: Generator) -> Iterator[SceneQuestion]:
    present = {(t.colour, t.kind) for t in scene.shapes}
    colours, kinds = {c for c, _ in present}, {k for _, k in present}
    absent: dict[str, list[tuple[str, str]]] = {"random": [], "popular": [], "adversarial": []}
    for colour in COLOURS:
        for kind in SHAPES:
            if (colour, kind) not in present:
                seen = (colour in colours) + (kind in kinds)
                absent[("random", "popular", "adversarial")[seen]].append((colour, kind))
    strata = [s for s in absent if absent[s]]
    for i, yes in enumerate(sorted(present)):
        stratum = strata[(i + int(rng.integers(3))) % len(strata)]
        no = absent[stratum][rng.integers(len(absent[stratum]))]
        yield SceneQuestion("exist", f"Is there {_article(yes[0])} {yes[1]} in the image?", "yes", stratum)
        yield SceneQuestion("exist", f"Is there {_article(no[0])} {no[1]} in the image?", "no", stratum)


def _article(colour: str) -> str:
    return f"{'an' if colour == 'orange' else 'a'} {colour}"


def _open(scene: Scene, rng: Generator) -> Iterator[SceneQuestion]:
    del rng
    shapes = scene.shapes
    for t in _unique(shapes, "kind"):
        yield SceneQuestion("open", f"What color is the {t.kind}?", t.colour, "color")
    for t in _unique(shapes, "colour"):
        yield SceneQuestion("open", f"What shape is {t.colour}?", t.kind, "shape")
    for kind, n in Counter(t.kind for t in shapes).items():
        yield SceneQuestion("open", f"How many {kind}{'es' if kind == 'cross' else 's'} are there?", str(n), "count")
    for t in _unique(shapes, "kind"):
        if abs(t.x - SIZE / 2) > _MARGIN:
            yield SceneQuestion(
                "open", f"Is the {t.kind} on the left or right?", "left" if t.x < SIZE / 2 else "right", "position"
            )


def _choice(scene: Scene, rng: Generator) -> Iterator[SceneQuestion]:
    def options(answer: str, pool: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        others = [p for p in pool if p != answer]
        picked = [answer, *(others[i] for i in rng.permutation(len(others))[:3])]
        shuffled = tuple(picked[i] for i in rng.permutation(4))
        return "ABCD"[shuffled.index(answer)], shuffled

    for t in _unique(scene.shapes, "kind"):
        letter, names = options(t.colour, tuple(COLOURS))
        yield SceneQuestion("choice", f"What color is the {t.kind}?", letter, "color", names)
    for t in _unique(scene.shapes, "colour"):
        letter, names = options(t.kind, SHAPES)
        yield SceneQuestion("choice", f"What shape is {t.colour}?", letter, "shape", names)
    for t in _unique(scene.glyphs, "colour"):
        letter, names = options(t.kind, LETTERS if t.kind in LETTERS else DIGITS)
        yield SceneQuestion("choice", f"Which character is {t.colour}?", letter, "text", names)


def _read(scene: Scene, rng: Generator) -> Iterator[SceneQuestion]:
    del rng
    for t in _unique(scene.glyphs, "colour"):
        yield SceneQuestion("read", f"Which character is {t.colour}?", t.kind, "by color")
    for name, pool in (("letter", LETTERS), ("digit", DIGITS)):
        found = [t for t in scene.glyphs if t.kind in pool]
        if len(found) == 1:
            yield SceneQuestion("read", f"What {name} is written in the image?", found[0].kind, name)

"""Generated multi-object scenes: what is in them, how they look, and where every object lies.

A scene is a 96 x 96 picture of three to five coloured shapes and one or two coloured glyphs (letters, digits) on a
cluttered, muted background. Objects are small against the 8-pixel patches of the demo model (two to three patches
across), so a pruner that looks at the wrong places loses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

SIZE = 96
"""Side of a picture, pixels."""
PATCH = 8
"""Side of a vision token, pixels; 12 x 12 = 144 tokens."""
GRID = SIZE // PATCH
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (255, 140, 10),
    "yellow": (250, 230, 40),
    "green": (30, 150, 50),
    "blue": (35, 80, 225),
    "purple": (145, 50, 190),
    "white": (250, 250, 250),
    "black": (12, 12, 12),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
LETTERS = tuple("ACEFHKLMPRTX")
DIGITS = tuple("0123456789")
KINDS = SHAPES + LETTERS + DIGITS
"""Everything an object can be; its index is the class label of the dense supervision."""
SIZES = ("small", "large")
_ZOOM = 2  # drawn at twice the size and reduced, for smooth edges
_RADIUS = {"small": (5.5, 6.5), "large": (9.5, 10.5)}
_GLYPH_RADIUS = (8.5, 9.5)


@dataclass(frozen=True)
class Thing:
    """One object: what it is and the circle (pixels) that holds it."""

    kind: str
    colour: str
    size: str
    x: float
    y: float
    radius: float

    @property
    def is_glyph(self) -> bool:
        """Whether this is a letter or a digit."""
        return self.kind not in SHAPES


@dataclass(frozen=True)
class Scene:
    """The objects of one picture and the seed of its background and colour jitter."""

    things: tuple[Thing, ...]
    seed: tuple[int, ...]

    @property
    def shapes(self) -> tuple[Thing, ...]:
        """The objects that are not glyphs."""
        return tuple(t for t in self.things if not t.is_glyph)

    @property
    def glyphs(self) -> tuple[Thing, ...]:
        """The letters and digits."""
        return tuple(t for t in self.things if t.is_glyph)


def sample_scene(seed: tuple[int, ...]) -> Scene:
    """Draw a scene; equal seeds give equal scenes."""
    rng = np.random.default_rng(seed)
    wanted: list[tuple[str, str, float]] = []
    for _ in range(rng.integers(1, 3)):
        letter = rng.random() < 0.5
        wanted.append((str(rng.choice(LETTERS if letter else DIGITS)), "large", rng.uniform(*_GLYPH_RADIUS)))
    shapes: list[str] = []
    for _ in range(rng.integers(3, 6)):
        repeat = bool(shapes) and rng.random() < 0.3
        shapes.append(str(rng.choice(shapes if repeat else SHAPES)))
        size = str(rng.choice(SIZES))
        wanted.append((shapes[-1], size, rng.uniform(*_RADIUS[size])))
    things: list[Thing] = []
    for kind, size, radius in wanted:
        spot = _free_spot(rng, radius, things)
        if spot is not None:
            things.append(Thing(kind, str(rng.choice(list(COLOURS))), size, *spot, radius))
    return Scene(tuple(things), seed)


def _free_spot(rng: Generator, radius: float, things: list[Thing]) -> tuple[float, float] | None:
    for _ in range(60):
        x, y = rng.uniform(radius + 1, SIZE - radius - 1, size=2)
        if all(np.hypot(x - t.x, y - t.y) > radius + t.radius + 1.5 for t in things):
            return float(x), float(y)
    return None


def render(scene: Scene) -> tuple[Image.Image, np.ndarray]:
    """Paint a scene.

    Returns
    -------
    image : PIL image, RGB, `SIZE` x `SIZE`
    owner : (GRID, GRID) int; the object that covers at least a fifth of the patch (the largest share), or -1

    """
    rng = np.random.default_rng((*scene.seed, 1))
    canvas = _background(rng)
    index = Image.new("L", canvas.size, 0)
    paint, mark = ImageDraw.Draw(canvas), ImageDraw.Draw(index)
    for i, thing in enumerate(scene.things):
        jitter = rng.integers(-14, 15, size=3)
        colour = tuple(int(c) for c in np.clip(np.add(COLOURS[thing.colour], jitter), 0, 255))
        turn = rng.uniform(-0.25, 0.25)
        _draw(paint, thing, colour, turn)
        _draw(mark, thing, i + 1, turn)
    owner = np.full((GRID, GRID), -1)
    step = PATCH * _ZOOM
    cells = np.asarray(index).reshape(GRID, step, GRID, step).swapaxes(1, 2).reshape(GRID, GRID, -1)
    shares = np.stack([(cells == i + 1).mean(-1) for i in range(len(scene.things))], -1)
    covered = shares.max(-1) >= 0.2
    owner[covered] = shares.argmax(-1)[covered]
    return canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS), owner


def _background(rng: Generator) -> Image.Image:
    """Muted smooth noise with thin strokes and specks."""
    side = SIZE * _ZOOM
    base = rng.uniform(95, 165) + rng.uniform(-14, 14, size=3)
    coarse = np.clip(base + rng.uniform(-16, 16, size=(7, 7, 3)), 0, 255).astype(np.uint8)
    canvas = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(8, 16)):
        x, y = rng.uniform(0, side, size=2)
        dx, dy = rng.uniform(-34, 34, size=2)
        tone = tuple(int(c) for c in np.clip(base + rng.uniform(-38, 38, size=3), 0, 255))
        draw.line([x, y, x + dx, y + dy], fill=tone, width=int(rng.integers(1, 4)))
    return canvas


def _draw(draw: ImageDraw.ImageDraw, thing: Thing, fill: object, turn: float) -> None:
    x, y, r = thing.x * _ZOOM, thing.y * _ZOOM, thing.radius * _ZOOM
    box = [x - r, y - r, x + r, y + r]
    if thing.is_glyph:
        font = ImageFont.load_default(size=int(r * 2.0))
        draw.text((x, y), thing.kind, fill=fill, font=font, anchor="mm", stroke_width=1, stroke_fill=fill)  # type: ignore[arg-type] # PIL has no alias for "colour of any mode"
    elif thing.kind == "circle":
        draw.ellipse(box, fill=fill)  # type: ignore[arg-type] # as above
    elif thing.kind == "ring":
        draw.ellipse(box, outline=fill, width=max(3, int(r * 0.42)))  # type: ignore[arg-type] # as above
    else:
        draw.polygon(_outline(thing.kind, x, y, r, turn), fill=fill)  # type: ignore[arg-type] # as above


def _outline(kind: str, x: float, y: float, r: float, turn: float) -> list[tuple[float, float]]:
    if kind == "cross":
        t = 0.34
        arm = [(-t, -1), (t, -1), (t, -t), (1, -t), (1, t), (t, t), (t, 1), (-t, 1), (-t, t), (-1, t), (-1, -t), (-t, -t)]
        c, s = cos(turn), sin(turn)
        return [(x + r * (u * c - v * s), y + r * (u * s + v * c)) for u, v in arm]
    corners = {"triangle": 3, "square": 4, "star": 10}[kind]
    start = turn - pi / 2 + (pi / 4 if kind == "square" else 0)
    reach = [r * (0.45 if kind == "star" and i % 2 else 1.0) for i in range(corners)]
    return [(x + d * cos(start + 2 * pi * i / corners), y + d * sin(start + 2 * pi * i / corners)) for i, d in enumerate(reach)]

"""Time what the host does for pictures before the device sees them: with one thread, then with all processors.

Both in one run; pictures are JPEG files of 640x480.

    python benchmarks/pictures.py
    python benchmarks/pictures.py --model dummy:qwen2.5-vl-7b --pictures 64
"""

from __future__ import annotations

import argparse
import io
import time
from unittest.mock import patch

import torch
from PIL import Image
from throughput import jpegs, open_model

from vtpbench.harness.host import threads
from vtpbench.harness.models import family
from vtpbench.harness.models.family import Family
from vtpbench.harness.run import bad_questions
from vtpbench.harness.run.bad_questions import BadQuestions
from vtpbench.harness.run.questions import Question

ROUNDS = 3
"""Of which the quickest counts."""


def questions(files: list[bytes]) -> list[Question]:
    """Ask one thing about each picture."""
    shown = [lambda file=file: [Image.open(io.BytesIO(file))] for file in files]
    return [Question(str(n), "What is it?", images, 1) for n, images in enumerate(shown)]


def measure(model: Family, asked: list[Question]) -> tuple[float, float]:
    """Milliseconds a picture to decode and hash, and to make its pixels."""
    decoding = preparing = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        decoded = BadQuestions(model).decode(asked)
        middle = time.perf_counter()
        for group in model.group([image for own in decoded.values() for image in own.images]):
            model.pixels(group)
        end = time.perf_counter()
        decoding, preparing = min(decoding, middle - start), min(preparing, end - middle)
    return 1000 * decoding / len(asked), 1000 * preparing / len(asked)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dummy:llava-1.5-7b")
    parser.add_argument("--pictures", type=int, default=256)
    given = parser.parse_args()
    model, asked = open_model(given.model, torch.device("cpu")), questions(jpegs(given.pictures))
    found = {}
    for count in (1, threads.processors()):
        with (
            patch.object(family, "threads_beside", lambda _, n=count: n),
            patch.object(bad_questions, "threads_beside", lambda _, n=count: n),
        ):
            found[count] = measure(model, asked)
        decoding, preparing = found[count]
        print(f"{count} threads: {decoding:.2f} ms a picture to decode and hash, {preparing:.2f} to make its pixels")
    one, all_of_them = (sum(times) for times in (found[1], found[threads.processors()]))
    print(f"{one / all_of_them:.2f} times as fast")


if __name__ == "__main__":
    main()

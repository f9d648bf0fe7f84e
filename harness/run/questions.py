"""Questions on their way to answers: as a task asks them, with their pictures decoded, with what a pruner leaves of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vtpbench.harness.run.pictures import TokenPlaces
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from vtpbench.harness.pruning.batch import ImageTokens


@dataclass(frozen=True)
class Question:
    """One question: `images` decodes its pictures, and is called once, when its turn comes."""

    sample: str
    text: str
    images: Callable[[], Sequence[Image]]
    max_new_tokens: int
    until: tuple[str, ...] = ()
    strip: bool = False
    """Whether blanks around the answer are taken away."""
    pictured: bool = False
    """Whether to note which tokens of its images stay."""
    benchmark: str = "the benchmark"
    """Where it is from, for messages."""

    def pictures(self) -> list[Image]:
        """Decode its pictures; a task that gives None has none to show, as in lmms-eval's adapters."""
        from PIL import Image

        shown = list(self.images() or ())
        for each in shown:
            if not isinstance(each, Image.Image):
                raise TypeError(
                    f"the task shows a {type(each).__name__}, {each!r:.60}, and no picture: video and sound are not supported"
                )
        return shown


@dataclass(frozen=True)
class DecodedImages:
    """The images of one question as they are shown, their content hashes, and the perceptual hash of the first one."""

    images: list[Image]
    names: tuple[str, ...]
    perceptual_hash: str


@dataclass(frozen=True)
class PrunedImages:
    """The images of one question: content hashes, the tokens that are left of them and, if asked for, their pictures."""

    names: tuple[str, ...]
    images: list[Image]
    tokens: list[ImageTokens]
    places: list[TokenPlaces]
    perceptual_hash: str
    """Of the first image."""


class ChangedPicture(UserError):
    """A known answer was given to other pictures than those that are there now."""

    def __init__(self, sample: str) -> None:
        self.sample = sample
        super().__init__(f"a picture of question {sample} has changed since it was answered")

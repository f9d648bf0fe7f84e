"""A record against its own table of samples: how many there are, what their answers look like, how many tokens stayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from vtpbench.harness.records.answer_shares import count_shares
from vtpbench.harness.records.cell import Sample
from vtpbench.harness.records.record import Observed, Record, agree

SHARES = ("empty", "most_common", "text", "most_common_target")
"""What a table tells of its answers; whether they came to an end is not in it."""


def count_faults(record: Record, rows: Sequence[Sample]) -> Iterator[str]:
    """Say where the counts of a record are not those of its table."""
    if record.n != len(rows):
        yield f"the record counts {record.n} samples, its table holds {len(rows)}"
    if record.skipped and record.benchmark.on_bad_question == "fail":
        yield f"it leaves out question {min(record.skipped)}, and was to fail where one cannot be asked"
    if both := sorted({row.sample for row in rows} & set(record.skipped)):
        yield f"question {both[0]} is answered, and left out as well"
    total = len({row.sample for row in rows} | set(record.skipped))
    if missing := sorted({str(number) for number in range(total)} - {row.sample for row in rows} - set(record.skipped), key=int):
        yield f"its table has no row of question {missing[0]}"
    limit = record.benchmark.limit
    if limit is not None and record.benchmark.draw is None and total > limit:
        yield f"the record asks {limit} questions at most, its table holds {total}"
    yield from _share_faults(record, rows)
    yield from _image_faults(rows)
    if record.observed is not None:
        yield from _token_faults(record, record.observed, rows)


def images_of(row: Sample) -> int:
    """Count the images of a question."""
    return len(row.images.split())


def _share_faults(record: Record, rows: Sequence[Sample]) -> Iterator[str]:
    found = count_shares([row.answer for row in rows], [True] * len(rows), [row.target for row in rows])
    if found is None or record.answers is None:
        if (found is None) != (record.answers is None):
            yield "the record says what its answers look like, or does not, unlike its table"
        return
    for name in SHARES:
        said, seen = getattr(record.answers, name), getattr(found, name)
        if said != seen and not (isinstance(seen, float) and agree(said, seen)):
            yield f"of the answers, `{name}` is {said!r} in the record and {seen!r} in its table"


def _image_faults(rows: Sequence[Sample]) -> Iterator[str]:
    """Say which row contradicts itself about its images: the first one is what is resampled, and tokens are of images."""
    for row in rows:
        first = (row.images.split() or [""])[0]
        if row.image != first:
            yield f"question {row.sample} has the image '{row.image:.40}' in one column and '{first:.40}' in another"
            return
        if not first and row.tokens:
            yield f"question {row.sample} has {row.tokens:.2f} vision tokens, and no image"
            return


def _token_faults(record: Record, observed: Observed, rows: Sequence[Sample]) -> Iterator[str]:
    images = sum(map(images_of, rows))
    if observed.images != images:
        yield f"the record counts {observed.images} images, its table names {images}"
    if not images:
        return
    mean = sum(row.tokens * images_of(row) for row in rows) / images
    if not agree(observed.tokens, mean):
        yield f"the record observed {observed.tokens:.6g} tokens, those of its table have the mean {mean:.6g}"
    layers = fmean(observed.per_layer or [0.0])
    if not agree(observed.tokens, layers):
        yield f"the record observed {observed.tokens:.6g} tokens, those of its layers have the mean {layers:.6g}"
    fixed = record.model.vision_tokens
    if fixed is not None and not agree(observed.original, fixed):
        yield f"the record counts {observed.original:.6g} tokens of an unpruned image, its model makes {fixed} of each"

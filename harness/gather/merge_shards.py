"""Join the answers of shards: they come into the journals of the suite's results, where the next run finds and scores them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vtpbench.harness.records.cell import Answer
from vtpbench.harness.records.journal import FileJournal
from vtpbench.harness.records.shard_note import ShardNote, read_note, shard_folders, write_note
from vtpbench.harness.records.store import Store
from vtpbench.pruners.errors import UserError


@dataclass(frozen=True)
class JoinedShards:
    """Shards of one suite, and the results that they belong to.

    Attributes
    ----------
    sources : folders of the shards
    note : of all of them together, with those that were joined before
    target : results of the suite

    """

    sources: tuple[Store, ...]
    note: ShardNote
    target: Store

    def conflicts(self) -> Iterator[str]:
        """Name answers to one question that differ, and cells of which several kinds of device have given answers."""
        for cell_id in self._cells():
            devices = self._devices(cell_id)
            if len(devices) > 1:
                yield f"{self.note.suite}/{cell_id}: answers of {' and '.join(sorted(devices))}; no table mixes these"
            first: dict[str, tuple[Answer, Path]] = {}
            for journal in self._journals(cell_id):
                for sample, answer in journal.known().items():
                    other, path = first.setdefault(sample, (answer, journal.path))
                    if _told(answer) != _told(other):
                        said = f"question {sample} has the answer {other.text[:40]!r} and {answer.text[:40]!r}, or other tokens"
                        yield f"{self.note.suite}/{cell_id}: {said}: {path} and {journal.path}"

    def write(self) -> int:
        """Bring the answers of cells that have no result yet, pictures first; gives how many answers are new.

        What is there already is left out, so that a merge that was killed is completed by repeating it.
        """
        new = 0
        for cell_id in self._cells():
            if self.target.is_whole(self.target.read(cell_id)):
                continue
            mine = FileJournal(self.target.journal_path(cell_id), next(iter(self._devices(cell_id)), None))
            have = set(mine.known())
            for store in self.sources:
                known = FileJournal(store.journal_path(cell_id)).known().values()
                answers = [answer for answer in known if answer.sample not in have]
                self._bring_pictures(store, answers)
                if answers:
                    mine.add(answers)
                have.update(answer.sample for answer in answers)
                new += len(answers)
        write_note(self.target.folder, self.note)
        return new

    def lines(self, new: int) -> list[str]:
        """Say what was joined, what is not here, and what to do next."""
        missing = sorted(set(range(1, self.note.of + 1)) - set(self.note.whole))
        joined = f"{self.note.suite}: {len(self.note.parts)} of {self.note.of} shards, {new:,} answers added"
        lines = [f"{joined}; score them: the same `vtpbench run`, without --shard, with --out {self.target.folder.parent}"]
        if missing:
            named = ", ".join(map(str, missing[:20])) + ("" if len(missing) <= 20 else " ...")
            lines.append(f"{self.note.suite}: not here, or not complete: shard {named}; what is missing is asked by that run")
        return lines

    def _cells(self) -> list[str]:
        return sorted({path.stem for store in self.sources for path in (store.folder / "journal").glob("*.jsonl")})

    def _devices(self, cell_id: str) -> set[str]:
        return {kind for journal in self._journals(cell_id) if (kind := journal.given_on()) is not None}

    def _journals(self, cell_id: str) -> list[FileJournal]:
        return [FileJournal(store.journal_path(cell_id)) for store in (self.target, *self.sources)]

    def _bring_pictures(self, store: Store, answers: Sequence[Answer]) -> None:
        for name in sorted({kept.picture for answer in answers for kept in answer.kept}):
            picture = store.picture(name)
            if picture is not None and self.target.picture(name) is None:
                self.target.save_picture(name, picture)


def find_shards(folders: Sequence[Path], out: Path, warn: Callable[[str], None]) -> list[JoinedShards]:
    """Find the shards at or below folders, by suite; `out` is the folder that results of suites are to lie in.

    Raises `UserError` where shards of one suite do not belong together.
    """
    found: dict[str, list[tuple[Path, ShardNote]]] = {}
    for place in dict.fromkeys(place.resolve() for folder in folders for place in shard_folders(folder)):
        note = read_note(place)
        assert note is not None, "a folder with a note was found"
        found.setdefault(note.suite, []).append((place, note))
    joined = []
    for suite, shards in found.items():
        target = Store(out / suite, warn)
        earlier = read_note(target.folder)
        notes = [*shards, *([] if earlier is None else [(target.folder, earlier)])]
        joined.append(JoinedShards(tuple(Store(place, warn) for place, _ in shards), _together(notes), target))
    return joined


def _together(notes: Sequence[tuple[Path, ShardNote]]) -> ShardNote:
    place, whole = notes[0]
    for other, note in notes[1:]:
        if note.device != whole.device:
            raise UserError(
                f"shards of {whole.suite} ran on {whole.device} ({place}) and {note.device} ({other}); no table mixes these"
            )
        if note.of != whole.of:
            raise UserError(f"{place} is one of {whole.of} shards, {other} one of {note.of}; join shards of one division")
        whole = whole.joined(note)
    return whole


def _told(answer: Answer) -> Answer:
    """Leave out what need not agree: how many questions are pictured is no part of a cell's identity."""
    return dataclasses.replace(answer, kept=())

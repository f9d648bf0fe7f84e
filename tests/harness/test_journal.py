from __future__ import annotations

from pathlib import Path

import pytest

from vtpbench.harness.cell import Answer
from vtpbench.harness.files import StorageError
from vtpbench.harness.journal import FileJournal


def answer(sample: str, text: str = "yes") -> Answer:
    return Answer(sample, text, ("img",), (16, 16), ((16, 4), (16, 4)))


@pytest.fixture
def journal(tmp_path: Path) -> FileJournal:
    return FileJournal(tmp_path / "journal" / "cell.jsonl")


def test_nothing_is_known_at_first(journal: FileJournal):
    assert journal.known() == {}


def test_answers_come_back_equal_whatever_the_text(journal: FileJournal):
    texts = ["yes", "", "two\nlines\r\n", "\u2028 \x85 \x00", '"}', "ü漢\U0001f600"]
    batch = [answer(str(i), text) for i, text in enumerate(texts)]
    journal.add(batch[:2])
    journal.add(batch[2:])
    assert journal.known() == {a.sample: a for a in batch}


def test_wherever_a_write_was_cut_off_only_its_own_lines_are_lost(journal: FileJournal):
    journal.add([answer("0")])
    whole = len(journal.path.read_bytes())
    journal.add([answer("1")])
    content = journal.path.read_bytes()
    for size in range(whole, len(content)):
        journal.path.write_bytes(content[:size])
        assert "0" in journal.known()
        journal.add([answer("2")])  # the next attempt appends behind the torn line
        assert journal.known()["2"] == answer("2")
        assert set(journal.known()) <= {"0", "1", "2"}
        assert ("1" in journal.known()) == (size == len(content) - 1), size


def test_a_full_disk_is_one_line_with_its_mend():
    with pytest.raises(StorageError, match="cannot write /dev/full: No space left on device; free some space"):
        FileJournal(Path("/dev/full")).add([answer("0")])

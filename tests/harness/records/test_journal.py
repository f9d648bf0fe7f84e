from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from vtpbench.harness.host.files import StorageError
from vtpbench.harness.records.cell import Answer, KeptTokens
from vtpbench.harness.records.journal import FileJournal
from vtpbench.pruners.errors import UserError


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


def test_a_perceptual_hash_comes_back_and_what_is_none_is_no_answer(journal: FileJournal):
    seen = replace(answer("0"), perceptual_hash="0123456789abcdef")
    journal.add([seen, replace(answer("1"), perceptual_hash="none")])
    assert journal.known() == {"0": seen}


def test_kept_tokens_come_back_equal(journal: FileJournal):
    tiles = (((0.0, 48.0, 96.0), (0.0, 64.0)), ((0.5, 1.0), (2.0, 3.0)))
    kept = KeptTokens("0123456789abcdef-96x64", 144, tiles, ((0, (3, -1)), (2, ())))
    pictured = replace(answer("0"), kept=(kept, kept))
    journal.add([pictured, answer("1")])
    assert journal.known() == {"0": pictured, "1": answer("1")}


def test_the_number_of_tokens_comes_back_and_is_a_count(journal: FileJournal):
    counted = replace(answer("0"), written=17)
    journal.add([counted, replace(answer("1"), written=-1), replace(answer("2"), written=True)])
    assert journal.known() == {"0": counted}


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


def test_no_flipped_bit_of_a_journal_is_taken_for_an_answer(journal: FileJournal):
    answers = [answer(str(i)) for i in range(6)]
    journal.add(answers)
    content, draw = journal.path.read_bytes(), random.Random(0)
    for _ in range(400):
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        journal.path.write_bytes(flipped)
        known = journal.known()
        assert known.items() <= {a.sample: a for a in answers}.items()
        assert journal.damaged() or len(known) == 6 or flipped[-1:] != b"\n"


def test_the_journal_of_another_cell_knows_no_answer(journal: FileJournal):
    journal.add([answer("0"), answer("1")])
    other = FileJournal(journal.path.with_name("other.jsonl"))
    journal.path.rename(other.path)
    assert (other.known(), other.damaged()) == ({}, 2)


def test_a_journal_says_on_what_its_answers_were_given_and_takes_none_of_another_kind(journal: FileJournal):
    assert journal.given_on() is None
    given = FileJournal(journal.path, "H100")
    given.add([answer("0")])
    journal.path.write_bytes(b"torn\n" + journal.path.read_bytes())
    healed = FileJournal(journal.path)
    healed.heal()
    assert healed.given_on() == "H100"
    assert healed.known() == {"0": answer("0")}
    given.refuse_other_device()
    with pytest.raises(UserError, match=r"are of H100, those of CPU would not be comparable: use H100, or another folder"):
        FileJournal(journal.path, "CPU").refuse_other_device()
    edited = journal.path.read_bytes().replace(b"H100", b"A100")
    journal.path.write_bytes(edited)
    assert healed.known() == {}, "the device is part of what is checked"


def test_answers_that_were_added_to_a_journal_of_an_earlier_version_say_on_what_they_were_given(journal: FileJournal):
    journal.add([answer("0")])
    FileJournal(journal.path, "CPU").refuse_other_device()
    FileJournal(journal.path, "CPU").add([answer("1")])
    with pytest.raises(UserError, match=r"are of CPU, those of H100 would not be comparable"):
        FileJournal(journal.path, "H100").refuse_other_device()


def test_what_is_damaged_is_set_aside_and_the_rest_stays(journal: FileJournal):
    journal.add([answer("0"), answer("1"), answer("2")])
    damaged = journal.path.read_bytes().replace(b'"sample": "1"', b'"sample": "7"')
    journal.path.write_bytes(damaged)
    assert journal.damaged() == 1
    assert journal.heal().read_bytes() == damaged
    assert (set(journal.known()), journal.damaged()) == ({"0", "2"}, 0)


def test_a_full_disk_is_one_line_with_its_mend():
    with pytest.raises(StorageError, match="cannot write /dev/full: No space left on device; free some space"):
        FileJournal(Path("/dev/full")).add([answer("0")])

from collections import Counter

from fuzz_files import main


def test_a_slice_of_the_mutated_files_ends_as_it_should() -> None:
    assert main(84, seed=5, show=True) == Counter({"as it should": 84})

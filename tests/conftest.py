"""Fixtures that several folders share."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the suite's promises about threads are tried with."""
    parser.addoption("--threads", type=int, help="threads of torch; by default one beside other workers, else torch's own choice")


def pytest_configure(config: pytest.Config) -> None:
    """Keep workers from fighting over the cores: two pools of two threads on two cores are ten times slower."""
    threads = config.getoption("--threads") or (1 if hasattr(config, "workerinput") else None)
    if threads:
        import torch

        torch.set_num_threads(threads)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny tensors only lose by a second thread; a fork while one runs may hang."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def save_llava() -> Callable[[Any, Any, Path], Path]:
    """Save a tiny model of the LLaVA kind with its processor, in Hugging Face form."""

    def save(model: Any, processor: Any, folder: Path) -> Path:
        model.model.save_pretrained(folder)
        processor(
            image_processor=model.image_processor,
            tokenizer=model.tokenizer,
            patch_size=4,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=model.chat_template,
        ).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, save_llava: Callable[[Any, Any, Path], Path]) -> Path:
    """Give the folder of a tiny random LLaVA in Hugging Face form: 16 vision tokens, 6 decoder layers."""
    from transformers import LlavaProcessor

    from vtpbench.harness.models.tiny import tiny_llava

    return save_llava(tiny_llava(), LlavaProcessor, tmp_path_factory.mktemp("tiny-llava"))


@pytest.fixture(scope="session")
def tiny_text_tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a tiny random CLIP, of which the text tower fits the vision tower of `tiny_checkpoint`."""
    from vtpbench.harness.models.tiny import clip_tokenizer, tiny_clip

    folder = tmp_path_factory.mktemp("tiny-clip")
    tiny_clip().save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def always_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let prompts share a prefill wherever they can, also where it does not pay: tiny models have few tokens."""
    from vtpbench.harness.pruning import shared_prefix, system_prompt  # not for every test: they import much

    monkeypatch.setattr(shared_prefix, "PASS", -math.inf)
    monkeypatch.setattr(system_prompt, "LEAST", 1)


@pytest.fixture(params=["alone", "side by side"])
def question_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let questions behind a prefix stand as they do on a processor, or as on a GPU."""
    from vtpbench.harness.pruning import shared_prefix

    distinct = shared_prefix.SharedPrefixes
    most = 1 if request.param == "alone" else shared_prefix.MOST
    monkeypatch.setattr(shared_prefix, "SharedPrefixes", lambda layout, shown, _, *others: distinct(layout, shown, most, *others))
    return str(request.param)

"""Build the demo model and its benchmarks from nothing: `python -m vtpbench.suites.demo.build --work DIR`.

Every stage leaves a file in the work folder and is skipped when that file exists, so an interrupted build goes on where
it stopped. Everything that is drawn is seeded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from vtpbench.suites.demo import language, tower
from vtpbench.suites.demo.card import write_card
from vtpbench.suites.demo.data import ScenePictures, load_pictures
from vtpbench.suites.demo.export import export_benchmarks, export_model
from vtpbench.suites.demo.language import LanguageTraining, Pack, Packer, train_answers, train_tokenizer
from vtpbench.suites.demo.questions import TASKS, SceneQuestion, ask
from vtpbench.suites.demo.scenes import GRID, KINDS, PATCH, SIZE
from vtpbench.suites.demo.tower import DenseHeads, DenseTargets, train_tower

N_VISION = GRID * GRID
DRILL_BACKGROUND = 0.08
"""Share of background tokens that a drill shows."""
BLIND_SHARE = 0.06
"""Share of training prompts without a picture, so that the blind baseline answers as well as it can."""


@dataclass(frozen=True)
class AnswerStage:
    """One stage after the tower's.

    scenes, steps, rate : scenes a step, steps, peak learning rate
    questions : at most so many a scene, in the order of `TASKS`
    drill : show objects and little else, ask bare questions;  joint : train the tower too
    align : what the projected patches of an object should resemble the words for
    """

    name: str
    scenes: int
    steps: int
    rate: float
    questions: tuple[int, int, int, int] = (3, 4, 4, 3)
    drill: bool = False
    joint: bool = False
    align: tuple[str, ...] = ("kind", "colour")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is trained; written into the model card."""

    seed: int = 0
    pictures: int = 40_000
    tower_batch: int = 32
    tower_steps: int = 4000
    tower_rate: float = 1.2e-3
    answer_stages: tuple[AnswerStage, ...] = (
        AnswerStage("drill", 16, 700, 1e-3, questions=(6, 8, 3, 4), drill=True),
        AnswerStage("drill again", 16, 450, 1.2e-3, questions=(6, 8, 3, 4), drill=True),
        AnswerStage("language", 8, 1000, 1.2e-3),
        AnswerStage("joint", 8, 150, 5e-4, joint=True),
        AnswerStage("counts and sides", 8, 1800, 1e-3, questions=(2, 9, 2, 2), align=("kind", "colour", "side")),
        AnswerStage("joint again", 8, 350, 8e-4, questions=(3, 7, 3, 3), joint=True, align=("kind", "colour", "side")),
        AnswerStage("joint, sides", 8, 400, 1.2e-3, questions=(2, 9, 2, 2), joint=True, align=("kind", "colour", "side")),
        AnswerStage("drill sides", 16, 250, 8e-4, questions=(3, 11, 2, 3), drill=True, align=("kind", "colour", "side")),
        AnswerStage("all again", 8, 700, 1e-3, questions=(3, 7, 3, 3), align=("kind", "colour", "side")),
    )


class DemoBuilder:
    """Runs the stages; holds what they share."""

    def __init__(self, recipe: Recipe, work: Path, device: torch.device) -> None:
        self.recipe, self.work, self.device = recipe, work, device
        work.mkdir(parents=True, exist_ok=True)
        self.start = time.time()
        self.pictures: ScenePictures = load_pictures("train", recipe.pictures, recipe.seed, work)

    def log(self, message: str) -> None:
        """Print with the seconds since the start."""
        print(f"{time.time() - self.start:6.0f}s {message}", flush=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note how long a stage took."""
        began = time.time()
        yield
        facts = self.facts()
        facts[name] = {"minutes": round((time.time() - began) / 60, 1)}
        (self.work / "facts.json").write_text(json.dumps(facts, indent=1))

    def facts(self) -> dict[str, Any]:
        """Read what the stages noted so far."""
        file = self.work / "facts.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Train the tokenizer on the prompts of some scenes."""
        rng = np.random.default_rng((self.recipe.seed, 10))
        asked = [q for scene in self.pictures.scenes[:2000] for task in TASKS for q in ask(scene, task, rng)]
        return train_tokenizer([f"USER: \n{q.prompt} ASSISTANT: {q.answer}" for q in asked])

    def fresh_model(self, tokenizer: PreTrainedTokenizerFast) -> tuple[LlavaForConditionalGeneration, DenseHeads]:
        """Build the untrained model and the supervision heads."""
        torch.manual_seed(self.recipe.seed)
        vision = CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=8,
            num_attention_heads=4,
            image_size=SIZE,
            patch_size=PATCH,
            initializer_factor=2.0,
        )
        text = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=320,
            num_hidden_layers=8,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            initializer_range=0.06,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        config = LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=N_VISION,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )
        model = LlavaForConditionalGeneration(config).to(self.device)
        tower.initialise(model.model.vision_tower)
        heads = DenseHeads(vision.hidden_size).to(self.device)
        language.initialise(model)
        return model, heads

    def restore(self, model: LlavaForConditionalGeneration, heads: DenseHeads, name: str) -> bool:
        """Load a stage's result if it is there."""
        file = self.work / f"{name}.pt"
        if not file.exists():
            return False
        state = torch.load(file, map_location=self.device, weights_only=True)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        return True

    def save(self, model: LlavaForConditionalGeneration, heads: DenseHeads, name: str) -> None:
        """Keep a stage's result."""
        file = self.work / f"{name}.pt"
        torch.save({"model": model.state_dict(), "heads": heads.state_dict()}, file.with_suffix(".tmp"))
        os.replace(file.with_suffix(".tmp"), file)

    def rows(self, stage: int, batch: int, steps: int) -> np.ndarray:
        """Which scenes each step sees, `(steps, batch)`: whole passes in random order."""
        rng = np.random.default_rng((self.recipe.seed, 20, stage))
        n = len(self.pictures.scenes)
        passes = [rng.permutation(n) for _ in range(steps * batch // n + 1)]
        return np.concatenate(passes)[: steps * batch].reshape(steps, batch)

    def train_tower(self, model: LlavaForConditionalGeneration, heads: DenseHeads) -> None:
        """Stage (i)."""
        recipe = self.recipe
        if self.restore(model, heads, "tower"):
            return
        rows = self.rows(0, recipe.tower_batch, recipe.tower_steps)
        with self.stage("tower"):
            train_tower(
                model.model.vision_tower,
                heads,
                lambda step: self.pictures.batch(rows[step], self.device),
                recipe.tower_steps,
                recipe.tower_rate,
                self.log,
            )
        self.save(model, heads, "tower")

    def train_answers(
        self, model: LlavaForConditionalGeneration, heads: DenseHeads, tokenizer: PreTrainedTokenizerFast, number: int
    ) -> None:
        """Run one of the recipe's stages after the tower's."""
        stage = self.recipe.answer_stages[number]
        if self.restore(model, heads, stage.name):
            return
        batch = self.answer_batches(Packer(tokenizer, N_VISION), number)
        answerer = LanguageTraining(model, heads, tokenizer, stage.align)
        with self.stage(stage.name):
            train_answers(answerer, batch, stage.steps, stage.rate, stage.joint, lambda text: self.log(f"{stage.name} {text}"))
        self.save(model, heads, stage.name)

    def answer_batches(self, packer: Packer, number: int) -> Callable[[int], tuple[Tensor, DenseTargets, Pack]]:
        """Batches of scenes with a dozen questions each."""
        stage, seed = self.recipe.answer_stages[number], 100 + number
        rows = self.rows(seed, stage.scenes, stage.steps)
        wanted = list(zip(TASKS, stage.questions, strict=True))

        def batch(step: int) -> tuple[Tensor, DenseTargets, Pack]:
            rng = np.random.default_rng((self.recipe.seed, 30, seed, step))
            questions: list[list[SceneQuestion]] = [
                [q for task, n in wanted for q in ask(self.pictures.scenes[row], task, rng)[:n]] for row in rows[step]
            ]
            pixels, targets = self.pictures.batch(rows[step], self.device)
            visible = torch.from_numpy(rng.random((len(questions), 1)) >= BLIND_SHARE)
            if stage.drill:
                front = self.pictures.targets.kind[torch.from_numpy(rows[step])] != len(KINDS)
                shown = visible & (front | torch.from_numpy(rng.random(front.shape) < DRILL_BACKGROUND))
            else:
                shown = visible.expand(-1, N_VISION)
            return pixels, targets, packer.pack(questions, shown, bare=stage.drill).to(self.device)

        return batch


def main() -> None:
    """Run all stages, then write the model, its card's facts and the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for intermediate results (about 2 GB)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder that gets model/ and tasks/data/")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)  # peaked attention is full of denormal numbers, which processors handle slowly
    builder = DemoBuilder(Recipe(), arguments.work, torch.device(arguments.device))
    tokenizer = builder.tokenizer()
    model, heads = builder.fresh_model(tokenizer)
    builder.train_tower(model, heads)
    for number in range(len(builder.recipe.answer_stages)):
        builder.train_answers(model, heads, tokenizer, number)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {arguments.device}"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    facts = {"recipe": asdict(builder.recipe), "stages": builder.facts(), "machine": machine, "versions": versions}
    export_benchmarks(arguments.out / "tasks" / "data", builder.recipe.seed)
    export_model(model, tokenizer, arguments.out / "model")
    write_card(arguments.out / "model", facts)


if __name__ == "__main__":
    main()

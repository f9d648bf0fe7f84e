"""Write the trained model in Hugging Face form, and the benchmarks as parquet."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import CLIPImageProcessor, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

from vtpbench.suites.demo.data import SPLITS
from vtpbench.suites.demo.language import CHAT_TEMPLATE
from vtpbench.suites.demo.questions import TASKS, SceneQuestion, ask
from vtpbench.suites.demo.scenes import PATCH, SIZE, render, sample_scene

QUESTIONS = 400
"""Of each benchmark."""
PER_SCENE = 4


def export_model(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save weights, configuration, processor, tokenizer and chat template.

    The weights are stored in half precision, which is half the size, and are to be run in float32, as the configuration says.
    """
    side = {"height": SIZE, "width": SIZE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.half().save_pretrained(folder)
    model.float()
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)


def benchmark_questions(task: str, seed: int, split: str, n: int) -> list[tuple[tuple[int, ...], SceneQuestion]]:
    """Questions of one task about scenes that training never saw, with the seeds of their scenes; scenes in a row."""
    rng = np.random.default_rng((seed, 40, SPLITS[split], TASKS.index(task)))
    found: list[tuple[tuple[int, ...], SceneQuestion]] = []
    scene = 0
    while len(found) < n:
        seeds = (SPLITS[split], seed, TASKS.index(task), scene)
        found += [(seeds, q) for q in ask(sample_scene(seeds), task, rng)[:PER_SCENE]]
        scene += 1
    return found[:n]


def export_benchmarks(folder: Path, seed: int) -> None:
    """Write one parquet file a task: id, image_id, image (PNG), question, options, answer, category."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        rows = benchmark_questions(task, seed, "benchmark", QUESTIONS)
        pictures = {seeds: _png(seeds) for seeds in dict.fromkeys(seeds for seeds, _ in rows)}
        names = {seeds: f"{task}-{n:03d}" for n, seeds in enumerate(pictures)}
        image = pa.array([{"bytes": pictures[s], "path": f"{names[s]}.png"} for s, _ in rows])
        table = pa.table(
            {
                "id": [f"{task}-q{n:03d}" for n in range(len(rows))],
                "image_id": [names[s] for s, _ in rows],
                "image": image,
                "question": [q.text for _, q in rows],
                "options": pa.array([list(q.options) for _, q in rows], pa.list_(pa.string())),
                "answer": [q.answer for _, q in rows],
                "category": [q.category for _, q in rows],
            }
        )
        table = table.replace_schema_metadata({"huggingface": _features(table)})
        pq.write_table(table, folder / f"{task}.parquet", dictionary_pagesize_limit=1 << 26, compression="zstd")


def _features(table: pa.Table) -> str:
    """Describe the columns for `datasets`, so that images decode."""
    text = {"dtype": "string", "_type": "Value"}
    columns: dict[str, object] = dict.fromkeys(table.column_names, text)
    special = {"image": {"_type": "Image"}, "options": {"feature": text, "_type": "List"}}
    return json.dumps({"info": {"features": {**columns, **special}}})


def _png(seeds: tuple[int, ...]) -> bytes:
    picture, _ = render(sample_scene(seeds))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()

"""Results, a suite, a task and a checkpoint, and the ways to damage or forge their files; see `fuzz_files.py`."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from vtpbench.harness.records.cell import Answer, Cell, Sample
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.records.record import BatchInfo, BenchmarkInfo, BudgetInfo, Environment, ModelInfo, Observed, PrunerInfo
from vtpbench.harness.records.store import Store
from vtpbench.harness.run.loop import RunContext, run
from vtpbench.harness.run.progress import Progress
from vtpbench.harness.suite.benchmarks import Benchmark

QUESTIONS = 12
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**300, 0.0, -0.5, 1e308, -1e308, "", " ", "a", "..",
    "../../victim", "/tmp/victim", "\x1b[31mred\x1b[0m", "\x9b31m", "a\nvtpbench: error: forged", "a\rb", "\u202egnp.exe",
    "x" * 5000, "é" * 300, "0123456789abcdef", [], {}, [[]], [1, 2], ["a", None], {"a": {"b": [1]}}, {"": 1}, "5%", "nan",
    "inf", "2025-99-99", "dummy:llava-1.5-7b", "\U000e0001",
)  # fmt: skip
SUITE = """\
name: toy
limit: 5
models:
  - {label: toy, path: checkpoint, dtype: float32}
generation: {max_new_tokens: 4, until: ["x"]}
matrix:
  pruners: [random, {label: mine, name: fastv, options: {layer: 1}}]
  budgets: [8, 50%]
  benchmarks: [{label: exist, task: exist, folder: tasks, metric: accuracy, scale: 100, overrides: {test_split: test}}]
  seeds: [0, 1]
"""
TASK = """\
task: exist
test_split: test
output_type: generate_until
dataset_path: parquet
dataset_kwargs: {data_files: {test: data.parquet}}
generation_kwargs: {max_new_tokens: 4, temperature: 0, do_sample: false, until: ["x"]}
metric_list: [{metric: accuracy, aggregation: mean, higher_is_better: true}]
doc_to_text: "!function utils.text"
"""
YAML_PARTS = (
    "2025-99-99", "!!int abc", "!!float x", "!!bool 5", "!!timestamp x", "!!null x", "9" * 5000, "0x" + "f" * 5000,
    "[" * 900 + "]" * 900, "&a [*a]", "&a {b: *a}", "!!binary x", "!!set {a, b}", "!!python/name:os.system x", "!x y",
    '"\\0"', '"\\ud800"', '"\\U00110000"', ".inf", ".nan", "1:1:1:1", '"\\e[31m"', "{<<: 5}", "{<<: [1]}", "? [a]",
    "*nowhere", "&a &b c", "~", "=", "{1: 2}", "{? {a: b} : c}", "x" * 300_000, "/" + "a/" * 5000, "a" * 5000, "1e5000",
    "-5000000000000000000000", "[]", "{}", "[[]]", '""', "|", "%YAML 9", "---", "\t", "\x01", "é",
)  # fmt: skip
CONFIG = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "image_token_index": 99,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "text_config": {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
                    "intermediate_size": 64, "vocab_size": 100},
    "vision_config": {"model_type": "clip_vision_model", "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
                      "intermediate_size": 64, "image_size": 28, "patch_size": 7},
}  # fmt: skip


class InstantEngine:
    """Answers every question with yes, a batch of four at a time."""

    def run(
        self, cell: Cell, benchmark: object, journal: Any, progress: Any, picture_folder: object, swept: object = None
    ) -> Outcome:
        """Answer what the journal does not know."""
        answers = journal.known()
        left = [str(i) for i in range(QUESTIONS) if str(i) not in answers]
        for start in range(0, len(left), 4):
            batch = [Answer(s, "yes", (f"{int(s):016x}",), (16,), ((8, 8),)) for s in left[start : start + 4]]
            journal.add(batch)
            answers.update({answer.sample: answer for answer in batch})
        detail = json.dumps({"vtp_f1": {"score": 1.0, "prediction": "yes", "ground_truth": "yes"}})
        rows = [Sample(a.sample, a.images[0], n[-1], "?", a.text, "yes", 1.0, 8.0, detail) for n, a in sorted(answers.items())]
        seen = Observed(tokens=8.0, original=16.0, per_layer=[8.0], images=len(rows))
        return Outcome("ok", None, 100.0, 0.0, {"vtp_f1": 1.0}, len(rows), seen, 0.0, BatchInfo(requested=4, smallest=4), rows)


def cells() -> list[Cell]:
    """Vanilla, and random with two seeds."""
    facts = {"family": "toy", "weights": "toy", "dtype": "float32", "attention": "sdpa", "preprocessing": "pad", "prompt": "0"}
    model = ModelInfo(label="toy", id="toy", vision_tokens=16, **facts)
    info = {"task": "exist", "metric": "vtp_f1", "scale": 100.0, "split": "test", "limit": None, "dataset": "0", "generation": {}}
    made = []
    for name, budget, seed in (
        ("vanilla", BudgetInfo(), 0),
        ("random", BudgetInfo(tokens=8), 0),
        ("random", BudgetInfo(tokens=8), 1),
    ):
        pruner = PrunerInfo(name=name, label=name, options={"order": 1}, code="0", distribution="vtpbench")
        made.append(Cell(model, pruner, budget, BenchmarkInfo(label="exist", **info), seed, 4, {"torch": "2"}))
    return made


def resume(root: Path, told: list[str]) -> str:
    """Run what is missing in a folder, as `vtpbench run` does."""
    screen = io.StringIO()
    benchmark = Benchmark.model_validate({"label": "exist", "task": "exist", "folder": str(root / "tasks"), "metric": "accuracy"})
    environment = Environment(versions={"torch": "2"}, device="abacus", platform="test", git_commit=None)
    store = Store(root / "results" / "toy", told.append)
    progress = Progress(Console(file=screen, width=200))
    setting = RunContext("toy", store, lambda model: InstantEngine(), {"exist": benchmark}, environment, progress)
    return screen.getvalue() + "\n".join(run(cells(), setting).lines())


def build(root: Path) -> None:
    """Write a suite with its task and checkpoint, and results with an unfinished cell beside the finished ones."""
    (root / "tasks").mkdir(parents=True)
    (root / "checkpoint").mkdir()
    (root / "toy.yaml").write_text(SUITE)
    (root / "tasks" / "exist.yaml").write_text(TASK)
    (root / "tasks" / "utils.py").write_text(f"open({str(root / 'ran')!r}, 'w').close()\n")
    pq.write_table(pa.table({"question": ["?"]}), root / "tasks" / "data.parquet")
    (root / "checkpoint" / "config.json").write_text(json.dumps(CONFIG))
    (root / "checkpoint" / "chat_template.json").write_text('{"chat_template": "<image>"}')
    (root / "checkpoint" / "model.safetensors").write_bytes(b"weights")
    (root / "speed").mkdir()
    published = Path(__file__).parents[1] / "results" / "published" / "efficiency"
    shutil.copy(min(published.glob("demo*.json")), root / "speed" / "demo.efficiency.json")
    resume(root, [])
    last = cells()[-1]
    store = Store(root / "results" / "toy", print)
    for path in (store.record_path(last.id), store.samples_path(last.id)):
        path.unlink()
    store.journal(last).add([Answer(str(i), "yes", (f"{i:016x}",), (16,), ((8, 8),)) for i in range(6)])


@dataclass
class Case:
    """One mutation in a fresh copy of everything."""

    root: Path
    draw: random.Random
    told: list[str] = field(default_factory=list)

    def pick(self, pattern: str) -> Path:
        """Choose a file of the results."""
        return self.draw.choice(sorted((self.root / "results" / "toy").glob(pattern)))


def flip(data: bytes, draw: random.Random) -> bytes:
    """Damage bytes: a bit, a cut, a run of others, two pieces in the other order, or nothing left."""
    kind, at = draw.randrange(6), draw.randrange(max(1, len(data)))
    if kind <= 1 and data:
        changed = bytearray(data)
        changed[at] ^= 1 << draw.randrange(8)
        return bytes(changed)
    parts = {
        2: data[:at],
        3: data[:at] + draw.randbytes(draw.randrange(1, 30)) + data[at + 3 :],
        4: data[at:] + data[:at],
        5: b"",
    }
    return parts.get(kind, b"")


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*at, key))


def changed(value: Any, draw: random.Random) -> Any:
    """Replace, remove or add something somewhere in a JSON value."""
    value = json.loads(json.dumps(value))
    at = draw.choice([*places(value)][1:])
    holder = value
    for key in at[:-1]:
        holder = holder[key]
    kind = draw.randrange(5)
    if kind == 0:
        del holder[at[-1]]
    elif kind == 1 and isinstance(holder, dict):
        holder[draw.choice(("unknown", "\x1b[2J", "label"))] = draw.choice(HOSTILE)
    else:
        holder[at[-1]] = draw.choice(HOSTILE)
    return value


def checksummed(body: dict[str, Any]) -> str:
    """Write a record with a checksum that is right."""
    body = {key: value for key, value in body.items() if key != "checksum"}
    checksum = sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode(errors="replace")).hexdigest()
    return json.dumps({**body, "checksum": checksum}, indent=1, sort_keys=True)


def deep(draw: random.Random) -> str:
    """JSON that is hard to read."""
    return draw.choice(
        (
            "[" * 100_000,
            '{"a":' * 900 + "1" + "}" * 900,
            '{"n": ' + "9" * 5000 + "}",
            '{"score": NaN}',
            '{"a": "\\ud800"}',
            "[]",
            "5",
            "null",
            "",
        )
    )


def mutate_record(case: Case) -> Path:
    """Change a record: damaged, or with other values under a checksum that is right, or no file."""
    path, kind = case.pick("records/*.json"), case.draw.randrange(8)
    if kind == 0:
        path.unlink()
        path.mkdir()
    elif kind == 1:
        path.write_text(deep(case.draw))
    elif kind <= 3:
        path.write_bytes(flip(path.read_bytes(), case.draw))
    else:
        path.write_text(checksummed(changed(json.loads(path.read_text()), case.draw)))
    return path


def mutate_efficiency(case: Case) -> Path:
    """Change an efficiency record: damaged, or with other values under a checksum that is right."""
    path, kind = case.root / "speed" / "demo.efficiency.json", case.draw.randrange(6)
    if kind == 0:
        path.write_text(deep(case.draw))
    elif kind == 1:
        path.write_bytes(flip(path.read_bytes(), case.draw))
    else:
        path.write_text(checksummed(changed(json.loads(path.read_text()), case.draw)))
    return path


def mutate_table(case: Case) -> Path:
    """Change a table: damaged, or another one; half of them with their new hash in the record."""
    path, kind = case.pick("samples/*.parquet"), case.draw.randrange(8)
    rows = pq.read_table(path).to_pylist()
    if kind == 0:
        path.unlink()
        path.mkdir()
    elif kind <= 2:
        path.write_bytes(flip(path.read_bytes(), case.draw))
    else:
        row, column = case.draw.choice(rows), case.draw.choice(sorted(rows[0]))
        texts = (
            "../victim", "\x1b[2J", "[" * 100_000, "{", "5", "[]", "9" * 5000, '{"vtp_f1": "a"}',
            '{"vtp_f1": {"score": [], "prediction": {}, "ground_truth": 1}}', "", '{"vtp_f1": {"score": "a"}}',
            '[{"picture": "../a", "tokens": 1, "tiles": [], "cuts": []}]', '{"vtp_f1": [1]}', '{"vtp_f1": 1e999}',
            '{"vtp_f1": {"score": 1e999}}', None,
        )  # fmt: skip
        numbers = (None, float("nan"), float("inf"), -5.0, 1e300)
        row[column] = case.draw.choice(numbers if isinstance(row[column], float) else texts)
        if kind == 3:
            rows = [{**row, column: 1} for row in rows] if case.draw.random() < 0.5 else [{"other": 1}]
        if kind == 4:
            rows.append(dict(rows[0]))
        pq.write_table(pa.Table.from_pylist(rows), path)
    record = path.parent.parent / "records" / f"{path.stem}.json"
    body = json.loads(record.read_text())
    if case.draw.random() < 0.5 and path.is_file() and "samples_sha256" in body:
        record.write_text(checksummed({**body, "samples_sha256": sha256(path.read_bytes()).hexdigest()}))
    return path


def mutate_journal(case: Case) -> Path:
    """Change the journal: damaged, with lines that are none, or no file."""
    path, kind = case.pick("journal/*.jsonl"), case.draw.randrange(6)
    lines = path.read_text().splitlines(keepends=True)
    if kind == 0:
        path.unlink()
        path.mkdir()
    elif kind <= 2:
        path.write_bytes(flip(path.read_bytes(), case.draw))
    elif kind == 3:
        lines.insert(case.draw.randrange(len(lines)), deep(case.draw) + "\n")
        path.write_text("".join(lines))
    elif kind == 4:
        at = case.draw.randrange(len(lines))
        lines[at] = json.dumps(changed(json.loads(lines[at]), case.draw)) + "\n"
        path.write_text("".join(lines))
    else:
        path.rename(path.with_name(f"{cells()[0].id}.jsonl"))
    return path


def mutate_yaml(text: str, draw: random.Random) -> bytes:
    """Text of a YAML file: values replaced, bytes damaged, or something else altogether."""
    kind = draw.randrange(6)
    if kind == 0:
        return flip(text.encode(), draw)
    if kind == 1:
        bomb = "x-a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"x-{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
        )
        merge = "x-a: &a {p: 1, q: 2}\n" + "".join(
            f"x-{chr(98 + i)}: &{chr(98 + i)} {{<<: [{','.join(['*' + chr(97 + i)] * 9)}]}}\n" for i in range(8)
        )
        return (draw.choice((bomb, merge)) + text).replace("limit: 5", draw.choice(("limit: 5", "limit: *i"))).encode()
    values = [*re.finditer(r"(?<=: )[^\n\[{][^\n,}\]]*|\[[^\n\[\]]*\]|\{[^\n{}]*\}", text)]
    found = draw.choice(values)
    part = draw.choice(YAML_PARTS) if kind <= 4 else json.dumps(draw.choice(HOSTILE))
    return (text[: found.start()] + part + text[found.end() :]).encode(errors="replace")


def mutate_suite(case: Case) -> Path:
    """Change the suite."""
    path = case.root / "toy.yaml"
    path.write_bytes(mutate_yaml(SUITE, case.draw))
    return path


def mutate_task(case: Case) -> Path:
    """Change the task, which may also include itself."""
    path = case.root / "tasks" / "exist.yaml"
    if case.draw.random() < 0.2:
        include = case.draw.choice(
            ("exist.yaml", "[exist.yaml, exist.yaml]", "5", "[5]", "nowhere.yaml", "..", "a" * 5000, '"\\0"', "{a: b}")
        )
        path.write_text(f"include: {include}\n{TASK}")
    else:
        path.write_bytes(mutate_yaml(TASK, case.draw))
    return path


def mutate_config(case: Case) -> Path:
    """Change files of the checkpoint."""
    path, kind = (
        case.root / "checkpoint" / case.draw.choice(("config.json", "config.json", "chat_template.json")),
        case.draw.randrange(5),
    )
    if kind == 0:
        path.write_text(deep(case.draw))
    elif kind == 1:
        path.write_bytes(flip(path.read_bytes(), case.draw))
    elif kind == 2 and case.draw.random() < 0.3:
        path.unlink()
        path.mkdir()
    else:
        path.write_text(json.dumps(changed(json.loads(path.read_text()), case.draw)))
    return path

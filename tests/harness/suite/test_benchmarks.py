from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import perf_counter

import datasets.config
import pytest

from vtpbench.harness.cli import listing
from vtpbench.harness.host import hub
from vtpbench.harness.suite.benchmarks import Benchmark, describe, fingerprint, must_download, registry, require_data, task_config
from vtpbench.harness.suite.suite import load
from vtpbench.harness.suite.task_file import find_task, read_task
from vtpbench.harness.suite.task_support import refuse_unsupported
from vtpbench.pruners.errors import UserError

TASK = """\
include: base_yaml
task: toy
dataset_path: json
dataset_kwargs: {data_files: {test: data/q.json}}
test_split: test
process_results: !function utils.score
metric_list:
- {metric: hits, aggregation: mean}
- {metric: bonus, aggregation: mean}
- {metric: submission, aggregation: mean}
"""
DOCS = Path(__file__).parents[3] / "docs" / "benchmarks.md"
OFFICIAL = {
    "gqa": ("lmms-lab-encoder/GQA", "testdev"),
    "mmbench": ("lmms-lab-encoder/MMBench", "dev"),
    "mme": ("lmms-lab-encoder/MME", "test"),
    "pope": ("lmms-lab-encoder/POPE", "test"),
    "scienceqa": ("lmms-lab-encoder/ScienceQA", "test"),
    "textvqa": ("lmms-lab-encoder/textvqa", "validation"),
    "vqav2": ("lmms-lab-encoder/VQAv2", "validation"),
    "vizwiz": ("lmms-lab-encoder/VizWiz-VQA", "val"),
    "mmmu": ("lmms-lab-encoder/MMMU", "validation"),
    "seed": ("lmms-lab-encoder/SEED-Bench", "test"),
    "mmstar": ("Lin-Chen/MMStar", "val"),
    "ocrbench": ("echo840/OCRBench", "test"),
    "chartqa": ("lmms-lab-encoder/ChartQA", "test"),
    "docvqa": ("lmms-lab-encoder/DocVQA", "validation"),
    "infovqa": ("lmms-lab-encoder/DocVQA", "validation"),
    "realworldqa": ("lmms-lab-encoder/RealWorldQA", "test"),
    "ai2d": ("lmms-lab-encoder/ai2d", "test"),
    "refcoco": ("lmms-lab-encoder/RefCOCO", "val"),
    "chair": ("tsunghanwu/mscoco_chair", "test"),
    "mmbench-cn": ("lmms-lab-encoder/MMBench", "dev"),
    "mmvet": ("lmms-lab-encoder/MMVet", "test"),
}
UNCOUNTED = {"refcoco", "chair"}
"""Nobody has published how many questions these ask."""


def make_task(folder: Path, task: str = TASK) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "toy.yaml").write_text(task)
    (folder / "base_yaml").write_text("test_split: train\ngeneration_kwargs: {max_new_tokens: 5}\n")
    (folder / "utils.py").write_text("def score(doc, results): ...\n")
    (folder / "data/q.json").write_text('{"question": "?"}')
    return folder


def toy(folder: Path, **changes: object) -> Benchmark:
    return Benchmark.model_validate({"label": "toy", "task": "toy", "folder": folder, "metric": "hits", **changes})


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and no network; the folder of the cache."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def put_in_cache(cache: Path, dataset: str, config: str, commit: str) -> Path:
    copy = cache / dataset / config / "0.0.0" / commit
    copy.mkdir(parents=True)
    (copy / "dataset_info.json").write_text("{}")
    return copy


def test_the_registry_has_the_ten_and_the_demo() -> None:
    assert set(registry()) >= {*OFFICIAL, "demo-exist", "demo-open", "demo-choice", "demo-read"}
    assert registry()["mme"].terms == ("mme_perception_score", "mme_cognition_score")


@pytest.mark.parametrize("label", sorted(registry()))
def test_every_known_benchmark_fits_its_task(label: str) -> None:
    benchmark = registry()[label]
    definition = benchmark.definition()
    assert set(benchmark.terms) <= {entry["metric"] for entry in definition["metric_list"]}
    assert definition["output_type"] == "generate_until"
    assert benchmark.card.endswith(".")
    assert benchmark.split == definition["test_split"]
    if label in OFFICIAL:
        assert (definition["dataset_path"], definition["test_split"]) == OFFICIAL[label]
        assert bool(benchmark.n) == (label not in UNCOUNTED)
        assert bool(benchmark.overrides) == (label == "mmvet"), "by default an official task is asked as it is"


def test_mmvet_is_asked_as_its_task_says_but_for_a_temperature_that_has_no_effect() -> None:
    benchmark = registry()["mmvet"]
    official = dict(read_task(benchmark.file)["generation_kwargs"])
    assert official.pop("do_sample") is False
    assert benchmark.overrides == {"generation_kwargs": {"max_new_tokens": official["max_new_tokens"], "do_sample": False}}
    assert (official["temperature"], official["top_p"], official["num_beams"]) == (0.2, 1.0, 1)
    own = Benchmark.model_validate({"mmvet": {"overrides": {"dataset_path": "a/b"}}})
    assert own.overrides == {**benchmark.overrides, "dataset_path": "a/b"}, "a suite's overrides leave those in force"
    other = {"generation_kwargs": {"max_new_tokens": 8}}
    assert Benchmark.model_validate({"mmvet": {"overrides": other}}).overrides == other, "unless they name the same key"


def profiled(profile: str, **changes: object) -> dict[str, Benchmark]:
    """Give the benchmarks that have profiles, under one of them."""
    labels = [label for label, benchmark in registry().items() if benchmark.profiles]
    return {label: Benchmark.model_validate({label: {"profile": profile, **changes}}).under("lmms-eval") for label in labels}


def test_the_papers_profile_differs_where_its_engine_did() -> None:
    plain, paper = profiled("lmms-eval"), profiled("paper")
    assert set(paper) == {"textvqa", "mmmu", "seed"}
    keys = "lmms_eval_specific_kwargs"
    without = plain["textvqa"].definition()[keys]
    assert paper["textvqa"].definition()[keys] == {"default": {**without["default"], "ocr": True}}
    assert without["default"]["ocr"] is False
    assert plain["mmmu"].definition()["generation_kwargs"] == {"max_new_tokens": 128}
    assert paper["mmmu"].definition()["generation_kwargs"] == {"max_new_tokens": 16}
    assert (plain["seed"].metric, paper["seed"].metric) == ("seed_all", "seed_image")
    assert (plain["seed"].unit, paper["seed"].unit) == ("accuracy, %", "accuracy on images, %")


def test_every_profile_that_is_offered_changes_a_cells_identity(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"rows")
    local = {"dataset_path": "parquet", "dataset_kwargs": {"data_files": str(tmp_path / "rows.parquet")}}
    plain, paper = profiled("lmms-eval", overrides=local), profiled("paper", overrides=local)
    for label in plain:
        assert paper[label].definition()["dataset_path"] == "parquet", "own overrides go together with those of a profile"
        infos = [describe(each, None, {}).model_dump() for each in (plain[label], paper[label])]
        assert infos[0] != infos[1]


def test_a_record_names_the_profile_that_was_followed_and_nothing_else_changes(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"rows")
    local = {"dataset_path": "parquet", "dataset_kwargs": {"data_files": str(tmp_path / "rows.parquet")}}

    def facts(label: str, profile: str, **changes: object) -> dict[str, object]:
        own = {"overrides": {**local, **changes.pop("overrides", {})}, **changes}
        info = describe(Benchmark.model_validate({label: own}).under(profile), None, {})
        return info.model_dump(mode="json", exclude={"label"})

    assert {label: facts(label, "paper").get("profile") for label in ("textvqa", "mmmu", "seed", "pope")} == {
        "textvqa": "paper", "mmmu": "paper", "seed": "paper", "pope": None
    }  # fmt: skip
    asked_otherwise = {"overrides": {"generation_kwargs": {"max_new_tokens": 99}}}
    for label, profile, changes in (
        ("mmmu", "lmms-eval", {}),
        ("pope", "paper", {}),  # both profiles ask it alike, so that it is one cell
        ("mmmu", "paper", asked_otherwise),
        ("seed", "paper", {"metric": "seed_video"}),
    ):
        assert facts(label, profile, **changes)["profile"] is None


def test_what_a_suite_says_wins_over_a_profile() -> None:
    def under(label: str, **changes: object) -> Benchmark:
        return Benchmark.model_validate({label: changes}).under("paper")

    assert under("seed").metric == "seed_image"
    assert under("seed", metric="seed_video").metric == "seed_video"
    assert under("seed", profile="lmms-eval").metric == "seed_all"
    longer = under("mmmu", overrides={"generation_kwargs": {"max_new_tokens": 99}})
    assert longer.definition()["generation_kwargs"] == {"max_new_tokens": 99}
    assert under("mmmu").under("lmms-eval") == under("mmmu"), "chosen once"
    assert under("pope") == registry()["pope"]


def test_a_suite_chooses_the_profile_of_its_benchmarks(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    chosen = "[seed, {seed: {label: SEED (all), profile: lmms-eval}}, gqa]"
    matrix = f"matrix: {{pruners: [random], budgets: [4], benchmarks: {chosen}}}"
    file.write_text(f"models: [a/b]\nprofile: paper\n{matrix}\n")
    assert [b.metric for b in load(file).benchmarks.values()] == ["seed_image", "seed_all", "exact_match"]
    assert [b.metric for b in load(file, ["profile=lmms-eval"]).benchmarks.values()] == ["seed_all", "seed_all", "exact_match"]
    with pytest.raises(UserError, match=r"s\.yaml:2: profile: input should be 'lmms-eval' or 'paper', not 'papers'"):
        load(_with(file, "papers"))


def _with(file: Path, profile: str) -> Path:
    file.write_text(file.read_text().replace("profile: paper", f"profile: {profile}"))
    return file


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL))
def test_examples_of_the_documentation_are_valid(example: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(example)
    for benchmark in load(tmp_path / "s.yaml").benchmarks.values():
        assert set(benchmark.terms) <= {entry["metric"] for entry in benchmark.definition()["metric_list"]}


def test_the_documentation_states_the_registry() -> None:
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]
    table = {row[0]: row[1:5] for row in rows if len(row) == 7}
    known = {label: benchmark for label, benchmark in registry().items() if label in OFFICIAL}
    counts = {label: f"{benchmark.n:,}" if benchmark.n else "-" for label, benchmark in known.items()}
    assert table == {label: [b.task, b.split, counts[label], b.metric] for label, b in known.items()}
    assert {row[0] for row in rows if len(row) == 3} == {label for label, b in registry().items() if b.profiles}


def test_listings_state_every_field_and_are_brief_on_a_terminal() -> None:
    listed = {row["label"]: row for row in listing.benchmarks()}
    assert listed["mme"]["needs"] == ""
    assert listed["seed"]["needs"] == "several images, video frames"
    assert listed["mmmu"]["profiles"].startswith("paper: ")
    assert all(row["per_sample"] and row["split"] and row["resampled_by"] == "image" for row in listed.values())
    assert set(listing.BRIEF["benchmarks"]) < set(listed["gqa"])


def test_a_benchmark_of_ones_own_can_have_profiles(tmp_path: Path) -> None:
    profiles = {"paper": {"metric": "bonus", "why": "they did"}}
    own = toy(make_task(tmp_path / "tasks"), profiles=profiles)
    assert (own.under("lmms-eval").metric, own.under("paper").metric) == ("hits", "bonus")


def test_tasks_are_found_by_name_not_by_file(tmp_path: Path) -> None:
    make_task(tmp_path / "tasks")
    (tmp_path / "tasks/toy.yaml").rename(tmp_path / "tasks/other.yaml")
    assert find_task("toy", tmp_path / "tasks").name == "other.yaml"
    with pytest.raises(UserError, match=r"no task 'toi' in .*; did you mean 'toy'\?"):
        find_task("toi", tmp_path / "tasks")
    with pytest.raises(UserError, match="no task 'popee' in lmms-eval; did you mean 'pope'"):
        find_task("popee", None)


def test_a_task_overwrites_what_it_includes(tmp_path: Path) -> None:
    definition = read_task(make_task(tmp_path / "tasks") / "toy.yaml")
    assert definition["test_split"] == "test"
    assert definition["generation_kwargs"] == {"max_new_tokens": 5}
    assert definition["process_results"] == "!function utils.score"


def test_describe_states_what_is_in_force(tmp_path: Path) -> None:
    benchmark = toy(make_task(tmp_path / "tasks"), metric="hits+bonus", scale=100)
    info = describe(benchmark, 7, {})
    assert (info.metric, info.scale, info.split, info.limit) == ("hits + bonus", 100, "test", 7)
    assert info.generation == {"do_sample": False, "max_new_tokens": 5, "until": []}
    replaced = describe(benchmark, None, {"max_new_tokens": 3, "until": ["."]})
    assert replaced.generation == {"do_sample": False, "max_new_tokens": 3, "until": ["."]}
    assert replaced.dataset == info.dataset == fingerprint(benchmark)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "hits + hist"}, "no metric 'hist'; did you mean 'hits'"),
        ({"overrides": {"generation_kwargs": {"do_sample": True}}}, "decodes greedily"),
        ({"overrides": {"generation_kwargs": {"num_beams": 2}}}, "decodes greedily"),
        ({"overrides": {"output_type": "multiple_choice"}}, "answers generate_until only"),
        ({"overrides": {"dataset_kwargs": {"video": True}}}, "shows videos, which are not supported; remove it"),
        ({"drop": ["hits"]}, "'hits' writes a file for an evaluation server and is no score; name another metric"),
        ({"overrides": {"dataset_kwargs": {"data_files": "gone.json"}}}, r"data file .*gone\.json, which does not exist"),
        ({"overrides": {"dataset_path": "./gone", "dataset_kwargs": None}}, r"folder \./gone, which does not exist"),
    ],
)
def test_describe_refuses(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        describe(toy(make_task(tmp_path / "tasks"), **changes), None, {})


JUDGED = ("KEY = os.getenv('OPENAI_API_KEY', '')", "from lmms_eval.llm_judge import get_server", "MINE_API_KEY = 'none'")


@pytest.mark.parametrize("line", JUDGED)
def test_a_score_that_a_language_model_may_give_needs_its_key_or_a_word(line, tmp_path, monkeypatch) -> None:
    for key in ("OPENAI_API_KEY", "AZURE_API_KEY", "MINE_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    folder = make_task(tmp_path / "tasks")
    (folder / "other.py").write_text(line)
    describe(toy(folder), None, {})  # a module of the folder that does not score
    with (folder / "utils.py").open("a") as code:
        code.write(line)
    key = "MINE_API_KEY" if "MINE" in line else "OPENAI_API_KEY"
    with pytest.raises(UserError, match=rf"may ask a language model to judge the answers, and of .*{key}.*judged: false"):
        describe(toy(folder), None, {})
    describe(toy(folder, judged=False), None, {})
    monkeypatch.setenv(key, "secret")
    describe(toy(folder), None, {})


def test_a_benchmark_that_says_it_is_judged_needs_a_key(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("AZURE_API_KEY", raising=False)
    with pytest.raises(UserError, match="of AZURE_API_KEY, OPENAI_API_KEY none is set"):
        describe(toy(make_task(tmp_path / "tasks"), judged=True), None, {})


@pytest.mark.parametrize(
    ("task", "metric", "message"),
    [
        ("mmvet", "gpt_eval_score", "may ask a language model"),
        ("mathvista_testmini_cot", "llm_as_judge_eval", "may ask a language model"),
        ("hallusion_bench_image", "aAcc", "may ask a language model"),
        ("vizwiz_vqa_test", "submission", "writes a file for an evaluation server"),
        ("mvbench_action_sequence", "mvbench_accuracy", "shows videos"),
        ("videomme", "videomme_perception_score", "shows videos"),
    ],
)
def test_tasks_of_lmms_eval_that_cannot_be_scored_here_are_refused_before_their_data_are_looked_for(
    task, metric, message, offline, monkeypatch
) -> None:
    for key in ("OPENAI_API_KEY", "AZURE_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(UserError, match=message):
        describe(Benchmark.model_validate({"label": "x", "task": task, "metric": metric}), None, {})


@pytest.mark.parametrize("label", sorted(OFFICIAL.keys() - {"mmvet", "chair"}))
def test_no_other_needs_a_judge(label, monkeypatch) -> None:
    for key in ("OPENAI_API_KEY", "AZURE_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    refuse_unsupported(registry()[label])


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("toy.yaml", "hits", "hits2"),
        ("base_yaml", "max_new_tokens: 5", "max_new_tokens: 6"),
        ("utils.py", "...", "return {}"),
        ("data/q.json", "?", "!"),
    ],
)
def test_fingerprint_changes_with_all_that_is_asked(file: str, old: str, new: str, tmp_path: Path) -> None:
    folder = make_task(tmp_path / "tasks")
    before = fingerprint(toy(folder))
    path = folder / file
    path.write_text(path.read_text().replace(old, new))
    assert fingerprint(toy(folder)) != before


def test_fingerprint_does_not_depend_on_place_comments_or_labels(tmp_path: Path) -> None:
    first, second = make_task(tmp_path / "a"), make_task(tmp_path / "b", "# a comment\n" + TASK)
    assert fingerprint(toy(first)) == fingerprint(toy(second, label="another", scale=100))
    assert fingerprint(toy(first, overrides={"doc_to_text": "x"})) != fingerprint(toy(first))


def test_fingerprint_reads_a_local_copy_of_an_official_dataset(tmp_path: Path) -> None:
    copy = tmp_path / "pope"
    copy.mkdir()
    (copy / "test.parquet").write_bytes(b"rows")
    local = registry()["pope"].model_copy(update={"overrides": {"dataset_path": str(copy)}})
    require_data(local)
    before = fingerprint(local)
    (copy / "test.parquet").write_bytes(b"other rows")
    assert fingerprint(local) != before
    assert {key: value for key, value in task_config(local).items() if key != "dataset_kwargs"} == {
        "task": "pope",
        "dataset_path": str(copy),
    }


def test_data_that_are_nowhere_are_named_at_once(offline: Path) -> None:
    start = perf_counter()
    with pytest.raises(UserError) as caught:
        require_data(registry()["gqa"])
    assert perf_counter() - start < 1
    message = str(caught.value)
    assert "lmms-lab-encoder/GQA (testdev_balanced_instructions)" in message
    assert "HF_HUB_OFFLINE is set" in message
    assert "datasets.load_dataset('lmms-lab-encoder/GQA', 'testdev_balanced_instructions')" in message
    with pytest.raises(UserError, match="needs the dataset lmms-lab-encoder/GQA"):
        fingerprint(registry()["gqa"])


def test_the_cache_serves_offline_and_its_commit_is_the_identity(offline: Path) -> None:
    gqa = registry()["gqa"]
    put_in_cache(offline, "lmms-lab-encoder___gqa", "testdev_balanced_instructions", "c1")
    with pytest.raises(UserError, match="testdev_balanced_images"):  # the task's code loads a second table
        require_data(gqa)
    put_in_cache(offline, "lmms-lab-encoder___gqa", "testdev_balanced_images", "c1")
    require_data(gqa)
    before = fingerprint(gqa)
    newer = put_in_cache(offline, "lmms-lab-encoder___gqa", "testdev_balanced_images", "c2")
    os.utime(newer, (2e9, 2e9))
    assert fingerprint(gqa) != before
    assert not must_download(gqa)
    assert task_config(gqa)["dataset_kwargs"] == {"cache_dir": str(offline), "trust_remote_code": False}


def test_broken_downloads_do_not_count(offline: Path) -> None:
    copy = put_in_cache(offline, "lmms-lab-encoder___mm_bench", "en", "c1")
    assert hub.cached_revision("lmms-lab-encoder/MMBench", "en") == "c1"
    (copy / "dataset_info.json").unlink()
    assert hub.cached_revision("lmms-lab-encoder/MMBench", "en") is None


def test_an_unreachable_hub_is_noticed_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with socket.socket() as silent:  # takes connections, never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
        start = perf_counter()
        with pytest.raises(UserError, match=f"{endpoint} cannot be reached"):
            require_data(registry()["pope"])
        with pytest.raises(UserError):
            require_data(registry()["mme"])
        assert perf_counter() - start < 2 * hub.TIMEOUT_S - 0.5  # tried once


class FakeHub(BaseHTTPRequestHandler):
    """Answers the two requests that are made: is anybody there, and which commit is the newest."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def do_GET(self) -> None:
        known = self.path.startswith("/api/datasets/lmms-lab-encoder/POPE")
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(b'{"id": "lmms-lab-encoder/POPE", "sha": "abc"}' if known else b"{}")

    def log_message(self, *args: object) -> None: ...


def test_data_on_the_hub_are_pinned_to_the_commit_that_identifies_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with HTTPServer(("127.0.0.1", 0), FakeHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        pope = registry()["pope"]
        require_data(pope)
        assert must_download(pope)
        before = fingerprint(pope)
        kwargs = task_config(pope)["dataset_kwargs"]
        assert kwargs == {"revision": "abc", "cache_dir": str(tmp_path), "trust_remote_code": False}, "no login is asked for"
        with pytest.raises(UserError, match="the hub does not give the dataset lmms-lab-encoder/MME"):
            fingerprint(registry()["mme"])
        put_in_cache(tmp_path, "lmms-lab-encoder___pope", "default", "abc")
        assert fingerprint(pope) == before  # downloading changes no identity
        server.shutdown()


def test_neither_lmms_eval_nor_torch_is_imported(tmp_path: Path) -> None:
    make_task(tmp_path / "tasks")
    code = f"""
import sys
from pathlib import Path
from vtpbench.harness.suite.benchmarks import Benchmark, describe
data = dict(label="toy", task="toy", folder=Path({str(tmp_path / "tasks")!r}), metric="hits")
describe(Benchmark.model_validate(data), None, {{}})
print([name for name in ("lmms_eval", "torch", "datasets", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

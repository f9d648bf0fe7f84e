"""MM-Vet with a judge of its own on this machine, and MMBench in Chinese, which needs none."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from vtpbench.harness.suite.benchmarks import describe, registry
from vtpbench.harness.suite.task_file import find_task, read_task
from vtpbench.harness.suite.task_support import JUDGE_KEYS
from vtpbench.pruners.errors import UserError
from vtpbench.report.stats import sums


class Judge(BaseHTTPRequestHandler):
    """Gives the share of the words of the truth that stand in the answer, in the form that OpenAI's servers have."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, truth, answer, _ = (part.strip() for part in asked["messages"][0]["content"].splitlines()[-1].split("|"))
        words = [word for word in truth.split() if not word.startswith("<")]
        score = sum(word in answer for word in words) / len(words)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"{score:.1f}"}}
        said = {"id": "1", "object": "chat.completion", "created": 0, "model": "made", "choices": [choice]}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let whoever asks a judge find this one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_API_URL", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()
    thread.join()


def test_mmvet_is_the_mean_of_what_the_judge_says(judge, played, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = played("mmvet", ["x is -1", "a kitchen", "go"])
    assert found.scores == [0.5, 1, 0]
    assert found.outcome.score == pytest.approx(50)
    assert [sample.category for sample in found.outcome.samples] == ["ocr,math", "rec", "ocr"]
    assert found.longest == {1024}
    rows = pd.DataFrame([dataclasses.asdict(sample) for sample in found.outcome.samples])
    monkeypatch.setattr(sums, "MIN_UNITS", 1)
    assert sums.summarise(found.cell.benchmark, found.outcome.score, rows).score == pytest.approx(50)
    assert sums.together(found.cell.benchmark, rows).nunique() == 3, "not the rotations of MMBench's metric of that name"


def test_mmvet_is_refused_without_the_judges_key(monkeypatch) -> None:
    for key in JUDGE_KEYS:
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(UserError, match="may ask a language model to judge the answers"):
        describe(registry()["mmvet"], None, {})


def test_mmbench_in_chinese_counts_questions_of_which_all_rotations_are_right(play, monkeypatch) -> None:
    for key in JUDGE_KEYS:
        monkeypatch.delenv(key, raising=False)
    played = play("mmbench-cn", ["A", "C.", "(B)", "答案是A", "??"])
    assert played.scores == [1, 1, 1, 1, 0]
    assert played.outcome.score == 50
    assert [sample.category for sample in played.outcome.samples] == ["identity"] * 3 + ["spatial"] * 2
    assert played.longest == {256}


def test_mmbench_in_chinese_is_lmms_evals_task_but_for_the_judge() -> None:
    own = read_task(registry()["mmbench-cn"].file)
    official = read_task(find_task("mmbench_cn_dev", None))
    same = {key: str(value).replace("mmbench_cn.", "cn_utils.") for key, value in own.items()}
    differ = {key for key in same.keys() | official.keys() if same.get(key) != str(official.get(key))}
    assert differ == {"task", "metric_list"}

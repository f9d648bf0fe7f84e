import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from vtpbench.suites.demo.data import SPLITS
from vtpbench.suites.demo.export import PER_SCENE, benchmark_questions
from vtpbench.suites.demo.questions import LETTER, SHORT, TASKS, ask
from vtpbench.suites.demo.scenes import GRID, PATCH, SIZE, render, sample_scene

SCENES = [sample_scene((9, 0, n)) for n in range(40)]


def data_file(task, request):
    return request.config.rootpath / "suites" / "demo" / "tasks" / "data" / f"{task}.parquet"


def test_equal_seeds_give_equal_pictures() -> None:
    first, second = (render(sample_scene((9, 0, 3)))[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != render(sample_scene((9, 0, 4)))[0].tobytes()


def test_owner_map_covers_every_object_where_it_is() -> None:
    for scene in SCENES:
        _, owner = render(scene)
        for n, thing in enumerate(scene.things):
            cells = np.argwhere(owner == n)
            assert len(cells), (scene.seed, thing)
            centre = (cells.mean(0) + 0.5) * PATCH
            assert np.hypot(*(centre - (thing.y, thing.x))) < thing.radius + PATCH / 2


def test_objects_do_not_touch_and_stay_inside() -> None:
    for scene in SCENES:
        for n, a in enumerate(scene.things):
            assert a.radius <= a.x <= SIZE - a.radius
            assert a.radius <= a.y <= SIZE - a.radius
            assert all(np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius for b in scene.things[:n])


def test_answers_are_true() -> None:
    rng = np.random.default_rng(0)
    for scene in SCENES:
        pairs = {(t.colour, t.kind) for t in scene.shapes}
        for q in ask(scene, "exist", rng):
            words = q.text.split()
            assert (q.answer == "yes") == ((words[3], words[4]) in pairs)
        for q in ask(scene, "open", rng):
            words = q.text.rstrip("?").split()
            if q.category == "color":
                assert [t.colour for t in scene.shapes if t.kind == words[-1]] == [q.answer]
            elif q.category == "shape":
                assert [t.kind for t in scene.shapes if t.colour == words[-1]] == [q.answer]
            elif q.category == "position":
                (x,) = [t.x for t in scene.shapes if t.kind == words[2]]
                assert q.answer == ("left" if x < SIZE / 2 else "right")
            else:
                kind = words[2].removesuffix("es") if words[2] == "crosses" else words[2].removesuffix("s")
                assert q.answer == str(sum(t.kind == kind for t in scene.shapes))
        for q in ask(scene, "choice", rng):
            assert len(set(q.options)) == 4
            chosen = q.options["ABCD".index(q.answer)]
            if q.category == "color":
                assert chosen in {t.colour for t in scene.shapes if t.kind in q.text}
        for q in ask(scene, "read", rng):
            assert q.answer in {t.kind for t in scene.glyphs}


def test_yes_and_no_are_balanced_in_every_stratum() -> None:
    rng = np.random.default_rng(1)
    asked = [q for scene in SCENES for q in ask(scene, "exist", rng)]
    for stratum in {q.category for q in asked}:
        answers = [q.answer for q in asked if q.category == stratum]
        assert answers.count("yes") == answers.count("no")


@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_questions_are_what_the_script_makes(task, request) -> None:
    table = pq.read_table(data_file(task, request)).to_pylist()
    expected = benchmark_questions(task, 0, "benchmark", len(table))
    assert len(table) >= 240
    assert [(r["question"], r["answer"], tuple(r["options"]), r["category"]) for r in table] == [
        (q.text, q.answer, q.options, q.category) for _, q in expected
    ]
    assert len({r["image_id"] for r in table}) <= len(table) / 2, "several questions an image"
    first = Image.open(io.BytesIO(table[0]["image"]["bytes"]))
    assert first.size == (SIZE, SIZE)
    assert len(table) > PER_SCENE


def test_benchmarks_share_no_scene_with_training_or_each_other() -> None:
    assert len(set(SPLITS.values())) == len(SPLITS)
    seeds = [s for task in TASKS for s, _ in benchmark_questions(task, 0, "benchmark", 50)]
    assert all(s[0] == SPLITS["benchmark"] for s in seeds)
    assert len({s[2] for s in seeds}) == len(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_prompts_of_the_tasks_are_those_of_the_training(task, request) -> None:
    folder = request.config.rootpath / "suites" / "demo" / "tasks"
    text = (folder / f"vtpbench_{task}.yaml").read_text().replace("!function", "")
    ending = yaml.safe_load(text)["lmms_eval_specific_kwargs"]["default"]["post_prompt"]
    assert ending == (LETTER if task == "choice" else SHORT)


def test_the_data_stay_small(request) -> None:
    assert sum(data_file(task, request).stat().st_size for task in TASKS) < 8 << 20


def test_the_grid_fits_the_picture() -> None:
    assert GRID * PATCH == SIZE
    assert GRID * GRID == 144


@pytest.mark.parametrize("task", TASKS)
def test_tasks_ask_exactly_what_the_model_was_trained_on(task) -> None:
    from vtpbench.suites.demo.tasks.utils import doc_to_text

    for _, q in benchmark_questions(task, 0, "benchmark", 20):
        row = {"question": q.text, "options": list(q.options)}
        ending = LETTER if q.options else SHORT
        assert doc_to_text(row, {"pre_prompt": "", "post_prompt": ending}) == q.prompt

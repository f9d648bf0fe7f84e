"""A few rows of each official benchmark, in the columns and types of the published parquet files.

Tests load this file by its path. `write(label, folder)` writes the rows of one benchmark and gives the `overrides` that
point its official lmms-eval task at them; `PROMPTS` are the texts that the task must ask, in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from typing import Any

from datasets import Dataset, Features, Image, SplitDict, SplitInfo, Value, Version
from PIL import Image as Pictures

Row = dict[str, Any]
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
TEXT, NUMBER, TRUTH = Value("string"), Value("int64"), Value("bool")


def picture(n: int) -> Pictures.Image:
    return Pictures.new("RGB", (8 + n, 8), (20 * n % 256, 90, 200))


def ten(**counts: int) -> list[str]:
    """Ten people's answers: `ten(red=7, blue=3)`."""
    answers = [answer.replace("_", " ") for answer, count in counts.items() for _ in range(count)]
    assert len(answers) == 10
    return answers


# GQA: open questions, several on one picture.
GQA = [
    ("n1", 1, "Is the sky dark?", "no"),
    ("n1", 1, "What colour is the car?", "red"),
    ("n1", 1, "Which side is the tree on?", "left"),
    ("n2", 2, "Who is wearing a hat?", "man"),
]


def gqa() -> tuple[str, Features, list[Row]]:
    names = {"global": TEXT, "local": TEXT}
    kinds = {"structural": TEXT, "semantic": TEXT, "detailed": TEXT}
    features = {"id": TEXT, "imageId": TEXT, "question": TEXT, "answer": TEXT, "fullAnswer": TEXT, "isBalanced": TRUTH}
    rows = [
        {
            "id": str(i),
            "imageId": image,
            "question": question,
            "answer": answer,
            "fullAnswer": f"It is {answer}.",
            "isBalanced": True,
            "groups": {"global": "", "local": "06-a"},
            "types": {"structural": "query", "semantic": "attr", "detailed": "a"},
            "image": picture(n),
        }
        for i, (image, n, question, answer) in enumerate(GQA)
    ]
    return "testdev", Features({**features, "groups": names, "types": kinds, "image": Image()}), rows


# MMBench: circular groups; rotation k of question i has the index i + k * 1e6.
MMBENCH = [
    (7, "nan", "What is shown?", ("cat", "dog", "cow", "pig"), "identity"),
    (8, "Look at the arrow.", "Where does it point?", ("up", "down", "left", "right"), "spatial"),
    (9, "nan", "Which is warmer?", ("sample one", "sample two"), "physics"),
    (10, "nan", "Is it safe?", ("safe", "risky"), "physics"),
]


def rotations(options: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [options[k:] + options[:k] for k in range(len(options))]


def mmbench() -> tuple[str, Features, list[Row]]:
    names = ("question", "hint", "answer", "A", "B", "C", "D", "category", "source", "L2-category", "comment", "split")
    rows = [
        {
            "index": index + k * 1_000_000,
            "question": question,
            "hint": hint,
            "answer": "ABCD"[turned.index(options[0])],
            **dict(zip("ABCD", (*turned, "nan", "nan"), strict=False)),
            "category": category,
            "image": picture(index),
            "source": "made",
            "L2-category": "all",
            "comment": "nan",
            "split": "dev",
        }
        for index, hint, question, options, category in MMBENCH
        for k, turned in enumerate(rotations(options))
    ]
    return "dev", Features({"index": NUMBER, **dict.fromkeys(names, TEXT), "image": Image()}), rows


# MME: pairs of questions on one picture; ten perception and four cognition categories.
MME = [
    ("existence", "e1", "Is there a dog in this image?", "Yes"),
    ("existence", "e1", "Is there a whale in this image?", "No"),
    ("existence", "e2", "Is there a bus in this image?", "Yes"),
    ("existence", "e2", "Is there a boat in this image?", "No"),
    ("OCR", "o1", 'Is the word in the logo "abc"?', "Yes"),
    ("OCR", "o1", 'Is the word in the logo "abd"?', "No"),
    ("code_reasoning", "c1", 'Is the output "3"?', "Yes"),
    ("code_reasoning", "c1", 'Is the output "4"?', "No"),
]


def mme() -> tuple[str, Features, list[Row]]:
    rows = [
        {
            "question_id": f"{category}/{name}.png",
            "image": picture(i // 2),
            "question": f"{question} Please answer yes or no.",
            "answer": answer,
            "category": category,
        }
        for i, (category, name, question, answer) in enumerate(MME)
    ]
    return "test", Features({**dict.fromkeys(("question_id", "question", "answer", "category"), TEXT), "image": Image()}), rows


# POPE: yes or no, three strata; pictures are shared between them.
POPE = [
    ("random", 1, "Is there a cup in the image?", "yes"),
    ("random", 1, "Is there a tie in the image?", "yes"),
    ("random", 2, "Is there a car in the image?", "no"),
    ("popular", 1, "Is there a person in the image?", "no"),
    ("popular", 2, "Is there a chair in the image?", "yes"),
    ("popular", 2, "Is there a table in the image?", "no"),
    ("adversarial", 1, "Is there a fork in the image?", "yes"),
    ("adversarial", 2, "Is there a knife in the image?", "no"),
]


def pope() -> tuple[str, Features, list[Row]]:
    rows = [
        {
            "id": str(i),
            "question_id": str(i + 1),
            "question": question,
            "answer": answer,
            "image_source": f"COCO_val2014_{n:012d}",
            "image": picture(n),
            "category": category,
        }
        for i, (category, n, question, answer) in enumerate(POPE)
    ]
    texts = ("id", "question_id", "question", "answer", "image_source", "category")
    return "test", Features({**dict.fromkeys(texts, TEXT), "image": Image()}), rows


# ScienceQA: letters; the picture may be missing, and so may the hint.
SCIENCEQA = [
    (1, "Rocks are old.", "Which is a rock?", ("granite", "wood"), 0),
    (2, "", "Which is a plant?", ("cat", "fern", "dog"), 1),
    (None, "", "Which is a metal?", ("iron", "salt"), 0),
    (3, "", "Which is a gas?", ("ice", "steam"), 1),
    (4, "", "Which is a liquid?", ("milk", "sand"), 0),
]


def scienceqa() -> tuple[str, Features, list[Row]]:
    texts = ("hint", "question", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution")
    rows = [
        {
            **dict.fromkeys(texts, "x"),
            "image": None if n is None else picture(n),
            "hint": hint,
            "question": question,
            "choices": list(choices),
            "answer": answer,
        }
        for n, hint, question, choices, answer in SCIENCEQA
    ]
    features = {**dict.fromkeys(texts, TEXT), "choices": [TEXT], "answer": Value("int8"), "image": Image()}
    return "test", Features(features), rows


# TextVQA: ten answers; the OCR tokens stand in the prompt only where the task is told so.
TEXTVQA = [
    ("what does the STOP sign say?", ten(stop=10), ["STOP", "all way"]),
    ("what brand is it?", ten(acme=3, ajax=7), ["acme"]),
    ("how many beers?", ten(two=4, three=6), []),
    ("who wrote it?", ten(poe=1, twain=2, unknown=7), ["Poe"]),
]


def textvqa() -> tuple[str, Features, list[Row]]:
    rows = [
        {
            "image_id": f"i{i}",
            "question_id": 34602 + i,
            "question": question,
            "question_tokens": question.rstrip("?").split(),
            "image": picture(i),
            "image_width": 8 + i,
            "image_height": 8,
            "image_classes": ["Sign"],
            "answers": answers,
            "ocr_tokens": tokens,
            "set_name": "val",
        }
        for i, (question, answers, tokens) in enumerate(TEXTVQA)
    ]
    lists = {name: [TEXT] for name in ("question_tokens", "image_classes", "answers", "ocr_tokens")}
    numbers = dict.fromkeys(("question_id", "image_width", "image_height"), Value("int32"))
    texts = dict.fromkeys(("image_id", "question", "set_name"), TEXT)
    return "validation", Features({**texts, **numbers, **lists, "image": Image()}), rows


# VQAv2: ten answers with their confidence; several questions on one picture.
VQAV2 = [
    (1, "What is this?", ten(cat=9, dog=1)),
    (1, "How many cats?", ten(**{"2": 2, "1": 8})),
    (2, "Is it day?", ten(yes=3, no=7)),
    (2, "What colour is it?", ten(red=1, blue=9)),
]


def vqav2() -> tuple[str, Features, list[Row]]:
    rows = [
        {
            "question_type": "what",
            "multiple_choice_answer": max(answers, key=answers.count),
            "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": k} for k, a in enumerate(answers, 1)],
            "image_id": 262148 + n,
            "answer_type": "other",
            "question_id": 262148000 + i,
            "question": question,
            "image": picture(n),
        }
        for i, (n, question, answers) in enumerate(VQAV2)
    ]
    texts = dict.fromkeys(("question_type", "multiple_choice_answer", "answer_type", "question"), TEXT)
    people = [{"answer": TEXT, "answer_confidence": TEXT, "answer_id": NUMBER}]
    features = {**texts, "answers": people, "image_id": NUMBER, "question_id": NUMBER, "image": Image()}
    return "validation", Features(features), rows


# VizWiz: ten answers, often that there is none.
VIZWIZ = [
    ("what IS this?", ten(unanswerable=10), "unanswerable"),
    ("is this a shirt?", ten(yes=7, unanswerable=3), "yes/no"),
    ("what number is it?", ten(unanswerable=8, **{"5": 2}), "number"),
    ("which can is it?", ten(corn=9, green_beans=1), "other"),
]


def vizwiz() -> tuple[str, Features, list[Row]]:
    rows = [
        {
            "question_id": f"VizWiz_val_{i:08d}",
            "image": picture(i),
            "question": question,
            "answers": answers,
            "category": category,
        }
        for i, (question, answers, category) in enumerate(VIZWIZ)
    ]
    texts = dict.fromkeys(("question_id", "question", "category"), TEXT)
    return "val", Features({**texts, "answers": [TEXT], "image": Image()}), rows


# MMMU: options as the text of a list, up to seven pictures that the text refers to, open questions among them.
MMMU = [
    ("Art_1", "Who painted <image 1>?", ("Monet", "Degas", "Goya", "Klee"), "B", 1),
    ("Art_2", "Which is older, <image 1> or <image 2>?", ("the first", "the second"), "A", 2),
    ("Math_1", "How long is x in <image 1>?", (), "12.5", 1),
    ("Math_2", "Name the curve in <image 1>.", (), "ellipse", 1),
    ("Physics_1", "Which diagram fits?", ("<image 1>", "<image 2>", "neither <image 3>"), "C", 3),
    ("Physics_2", "What does <image 1> show?", ("a lens", "a prism"), "B", 1),
]


def mmmu() -> tuple[str, Features, list[Row]]:
    texts = ("id", "question", "options", "explanation", "img_type", "answer", "topic_difficulty", "question_type", "subfield")
    rows = [
        {
            **dict.fromkeys(texts, ""),
            "id": f"validation_{name}",
            "question": question,
            "options": str(list(options)),
            **{f"image_{k}": picture(i + 10 * k) if k <= pictures else None for k in range(1, 8)},
            "answer": answer,
            "question_type": "multiple-choice" if options else "open",
        }
        for i, (name, question, options, answer, pictures) in enumerate(MMMU)
    ]
    images = {f"image_{k}": Image() for k in range(1, 8)}
    return "validation", Features({**dict.fromkeys(texts, TEXT), **images}), rows


# SEED: letters; a video question shows its frames as several pictures.
SEED = [
    ("image", 1, "How many people?", "B"),
    ("image", 1, "What is in the middle?", "D"),
    ("image", 1, "Where is the cup?", "A"),
    ("video", 3, "What happens next?", "C"),
    ("video", 2, "What is done?", "A"),
]


def seed() -> tuple[str, Features, list[Row]]:
    texts = ("answer", "choice_a", "choice_b", "choice_c", "choice_d", "data_id", "data_type", "question", "question_id")
    rows = [
        {
            "answer": answer,
            **{f"choice_{letter}": f"option {letter}" for letter in "abcd"},
            "data_id": str(i),
            "data_type": kind,
            "question": question,
            "question_id": f"q{i}",
            "question_type_id": 1 + i,
            "image": [picture(i + 10 * k) for k in range(pictures)],
            "segment": [0.0, 1.0] if kind == "video" else None,
        }
        for i, (kind, pictures, question, answer) in enumerate(SEED)
    ]
    features = {**dict.fromkeys(texts, TEXT), "question_type_id": NUMBER, "image": [Image()], "segment": [Value("float64")]}
    return "test", Features(features), rows


def fill_cache_with_gqa(cache: Path) -> None:
    """Put GQA's two tables, questions and pictures, into a cache of `datasets` as if they had come from the hub."""
    split, features, rows = gqa()
    names = Features({"id": TEXT, "image": Image()})
    pictures = Dataset.from_list([{"id": name, "image": picture(n)} for name, n in {(g[0], g[1]) for g in GQA}], features=names)
    questions = Dataset.from_list(rows, features=features).remove_columns("image")
    for config, table in {"testdev_balanced_instructions": questions, "testdev_balanced_images": pictures}.items():
        copy = cache / "lmms-lab-encoder___gqa" / config / "0.0.0" / ("c" * 40)
        table.save_to_disk(str(copy))
        (copy / "data-00000-of-00001.arrow").rename(copy / f"gqa-{split}.arrow")
        info = table.info.copy()
        info.dataset_name, info.config_name, info.version = "gqa", config, Version("0.0.0")
        info.splits = SplitDict({split: SplitInfo(split, num_examples=len(table), dataset_name="gqa")})
        info.write_to_directory(str(copy))


def lettered(options: tuple[str, ...]) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))


OPTIONS = "There are several options:\n"
CHOICES = lettered(("option a", "option b", "option c", "option d"))
INSUFFICIENT = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
PROMPTS: dict[str, list[str]] = {
    "gqa": [question + SHORT for _, _, question, _ in GQA],
    "mmbench": [
        f"{'' if hint == 'nan' else hint + ' '}{question} {OPTIONS}{lettered(turned)}\n{LETTER}"
        for _, hint, question, options, _ in MMBENCH
        for turned in rotations(options)
    ],
    "mme": [question + SHORT for _, _, question, _ in MME],
    "pope": [question + SHORT for _, _, question, _ in POPE],
    "scienceqa": [
        f"{f'Context: {hint}' + chr(10) if hint else ''}{question}\n{lettered(choices)}{LETTER}"
        for _, hint, question, choices, _ in SCIENCEQA
    ],
    "textvqa": [question.capitalize() + SHORT for question, _, _ in TEXTVQA],
    "vqav2": [question + SHORT for _, question, _ in VQAV2],
    "vizwiz": [question.capitalize() + INSUFFICIENT + SHORT for question, _, _ in VIZWIZ],
    "mmmu": [
        f"{question}\n{lettered(options)}\n{LETTER}" if options else f"{question}\n{SHORT}" for _, question, options, _, _ in MMMU
    ],
    "seed": [f"{question}\n{CHOICES}{LETTER}" for _, _, question, _ in SEED],
}
TABLES: dict[str, Callable[[], tuple[str, Features, list[Row]]]] = {
    "gqa": gqa,
    "mmbench": mmbench,
    "mme": mme,
    "pope": pope,
    "scienceqa": scienceqa,
    "textvqa": textvqa,
    "vqav2": vqav2,
    "vizwiz": vizwiz,
    "mmmu": mmmu,
    "seed": seed,
}
MORE = run_path(str(Path(__file__).with_name("official_more.py")))
PROMPTS |= MORE["PROMPTS"]
TABLES |= MORE["TABLES"]


def write(label: str, folder: Path) -> dict[str, Any]:
    """Write a benchmark's rows as parquet; give the overrides that point its official task at them."""
    split, features, rows = TABLES[label]()
    file = folder / f"{label}.parquet"
    Dataset.from_list(rows, features=features).to_parquet(str(file))
    local = {"dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": {split: str(file)}}}
    # GQA's own `process_docs` fetches the pictures from the hub by a name in its code; here they are in the rows.
    return {**local, "process_docs": None} if label == "gqa" else local

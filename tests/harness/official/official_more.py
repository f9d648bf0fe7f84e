"""A few rows of each benchmark of `benchmarks_more.yaml`, in the columns and types of the published parquet files.

`official_data.py` loads this file by its path, and adds its tables and prompts to its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Features, Image, Value
from PIL import Image as Pictures

Row = dict[str, Any]
Made = tuple[str, Features, list[Row]]
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
TEXT, NUMBER = Value("string"), Value("int64")


def picture(n: int, width: int = 8, height: int = 8) -> Pictures.Image:
    return Pictures.new("RGB", (width + n, height), (90, 20 * n % 256, 200))


def texts(*names: str) -> dict[str, Value]:
    return dict.fromkeys(names, TEXT)


# MMStar: three sub-abilities of two abilities, with unequal numbers of questions.
MMSTAR = [
    ("What is shown?\nOptions: A: cat, B: dog, C: cow, D: pig", "B", "coarse perception", "image scene and topic"),
    ("Which style is it?\nOptions: A: oil, B: ink, C: chalk, D: photo", "A", "coarse perception", "image style & quality"),
    ("Is it a photo?\nOptions: A: yes, B: no, C: both, D: neither", "D", "coarse perception", "image style & quality"),
    ("How long is x?\nOptions: A: 1, B: 2, C: 3, D: 4", "C", "math", "geometry"),
    ("How wide is y?\nOptions: A: 1, B: 2, C: 3, D: 4", "A", "math", "geometry"),
    ("How high is z?\nOptions: A: 1, B: 2, C: 3, D: 4", "B", "math", "geometry"),
]


def mmstar() -> Made:
    places = {"source": "made", "split": "val", "image_path": "images/0.jpg"}
    rows = [
        {"index": i, "question": q, "image": picture(i), "answer": a, "category": c, "l2_category": l2, "meta_info": places}
        for i, (q, a, c, l2) in enumerate(MMSTAR)
    ]
    names = texts("question", "answer", "category", "l2_category")
    return "val", Features({"index": NUMBER, **names, "image": Image(), "meta_info": texts(*places)}), rows


# OCRBench: right if an answer stands in what was said; formulas keep their case.
OCRBENCH = [
    ("IIIT5K", "what is written in the image?", "Regular Text Recognition", ["Exit"]),
    ("TextVQA", "what is the brand?", "Scene Text-centric VQA", ["acme", "Acme Co"]),
    ("HME100k", "Please write out the formula. ", "Handwritten Mathematical Expression Recognition", ["x ^ 2 + Y"]),
    ("FUNSD", "what is the date?", "Key Information Extraction", ["12/03/98"]),
]


def ocrbench() -> Made:
    rows = [
        {"dataset": name, "question": question, "question_type": kind, "answer": answers, "image": picture(i)}
        for i, (name, question, kind, answers) in enumerate(OCRBENCH)
    ]
    return "test", Features({**texts("dataset", "question", "question_type"), "answer": [TEXT], "image": Image()}), rows


# ChartQA: numbers within five per cent, words exactly; questions by people, and generated ones.
CHARTQA = [
    ("human_test", "How tall is the red bar?", "40"),
    ("human_test", "Which is the tallest?", "Peru"),
    ("human_test", "What share is green?", "25%"),
    ("augmented_test", "What was it in 2010?", "1200.5"),
    ("augmented_test", "What was it in 2011?", "0.3"),
]


def chartqa() -> Made:
    rows = [{"type": k, "question": q, "answer": a, "image": picture(i)} for i, (k, q, a) in enumerate(CHARTQA)]
    return "test", Features({**texts("type", "question", "answer"), "image": Image()}), rows


# DocVQA and InfographicVQA: similarity of letters to the nearest of several answers; several questions on a page.
DOCVQA = [
    (14, "What is the date?", ["April 1", "1 April"], ["handwritten", "form"]),
    (14, "Who signed it?", ["J. Smith"], ["layout"]),
    (15, "What is the total?", ["$ 1,200"], ["table/list"]),
    (16, "What is the title?", ["Annual Report"], ["layout", "free_text"]),
]


def docvqa() -> Made:
    rows = [
        {
            "questionId": str(337 + i),
            "question": question,
            "question_types": kinds,
            "image": picture(document, 20),
            "docId": document,
            "ucsf_document_id": f"doc{document}",
            "ucsf_document_page_no": "1",
            "answers": answers,
            "data_split": "val",
        }
        for i, (document, question, answers, kinds) in enumerate(DOCVQA)
    ]
    names = texts("questionId", "question", "ucsf_document_id", "ucsf_document_page_no", "data_split")
    lists = {"question_types": [TEXT], "answers": [TEXT]}
    return "validation", Features({**names, **lists, "docId": NUMBER, "image": Image()}), rows


INFOVQA = [
    (1, "What share is red?", ["30%", "30 %"], ["single span"]),
    (1, "How many are green?", ["12"], ["non-extractive"]),
    (2, "Which city is first?", ["Lima"], ["single span", "question span"]),
]


def infovqa() -> Made:
    rows = [
        {
            "questionId": str(98313 + i),
            "question": question,
            "answers": answers,
            "answer_type": kinds,
            "image": picture(n, 8, 40),
            "image_url": f"http://example.org/{n}.jpeg",
            "operation/reasoning": [],
            "ocr": "[]",
            "data_split": "val",
        }
        for i, (n, question, answers, kinds) in enumerate(INFOVQA)
    ]
    lists = {"answers": [TEXT], "answer_type": [TEXT], "operation/reasoning": [TEXT]}
    names = texts("questionId", "question", "image_url", "ocr", "data_split")
    return "validation", Features({**names, **lists, "image": Image()}), rows


# RealWorldQA: letters, numbers and words; how to answer stands in the question.
DIRECTLY = "\nPlease answer directly with only the letter of the correct option and nothing else."
WORD = "\nPlease answer directly with a single word or number."
REALWORLDQA = [
    (f"Which way does the road turn?\n\nA. left\nB. right{DIRECTLY}", "B"),
    (f"How many cars wait?{WORD}", "2"),
    (f"Is it uphill or downhill?{WORD}", "Downhill"),
    (f"Which lane is free?\n\nA. left\nB. middle\nC. right{DIRECTLY}", "C"),
]


def realworldqa() -> Made:
    rows = [{"image": picture(i), "image_path": f"{i}.webp", "question": q, "answer": a} for i, (q, a) in enumerate(REALWORLDQA)]
    return "test", Features({"image": Image(), **texts("image_path", "question", "answer")}), rows


# AI2D: the number of the right option, as text.
AI2D = [
    ("Which part is the root?", ("a", "b", "c", "d"), 1),
    ("What does the arrow mean?", ("growth", "decay", "water", "heat"), 0),
    ("Which comes first?", ("egg", "larva", "pupa", "adult"), 3),
    ("What eats the fox?", ("hen", "grass", "bear", "worm"), 2),
]


def ai2d() -> Made:
    rows = [
        {"question": question, "options": list(options), "answer": str(right), "image": picture(i)}
        for i, (question, options, right) in enumerate(AI2D)
    ]
    return "test", Features({**texts("question", "answer"), "options": [TEXT], "image": Image()}), rows


# RefCOCO: boxes as x, y, width, height in pixels of pictures of 100 x 50; an object with two descriptions is asked twice.
REFCOCO = [
    (0, ["red cup", "the cup on the left"], (10.0, 10.0, 30.0, 20.0)),
    (0, ["spoon"], (50.0, 0.0, 50.0, 50.0)),
    (1, ["tall man"], (0.0, 0.0, 20.0, 50.0)),
]
WHERE = (
    "Bounding box coordinates are specified in the format (top-left x, top-left y, bottom-right x, bottom-right y). "
    "All values are floating point numbers bounded between 0 and 1. "
    "Please provide the bounding box coordinate of the region this sentence describes: "
)


def refcoco() -> Made:
    rows = [
        {
            "question_id": str(i),
            "image": Pictures.new("RGB", (100, 50), (60 * n, 30, 200)),
            "question": "Please carefully observe the area and come up with a caption for it.",
            "answer": phrases,
            "segmentation": [box[0], box[1], box[0] + 1, box[1] + 1],
            "bbox": list(box),
            "iscrowd": 0,
            "file_name": f"COCO_train2014_{n:012d}_{i}.jpg",
        }
        for i, (n, phrases, box) in enumerate(REFCOCO)
    ]
    numbers = {"segmentation": [Value("float32")], "bbox": [Value("float32")], "iscrowd": Value("int8")}
    names = texts("question_id", "question", "file_name")
    return "val", Features({**names, "answer": [TEXT], **numbers, "image": Image()}), rows


# CHAIR: captions of pictures; the same prompt each time.
CHAIR = [(["cat", "chair"], 139), (["dog"], 285), (["person", "car", "bus"], 632), (["pizza"], 724)]


def chair() -> Made:
    rows = [{"question_id": str(name), "image": picture(i), "gt_object": there} for i, (there, name) in enumerate(CHAIR)]
    return "test", Features({"question_id": TEXT, "image": Image(), "gt_object": [TEXT]}), rows


# MMBench in Chinese: rotations as in the English one.
MMBENCH_CN = [(7, None, "图中是什么?", ("猫", "狗", "牛"), "identity"), (8, "看箭头。", "它指向哪里?", ("上", "下"), "spatial")]
LETTER_CN = "\n请直接使用所提供的选项字母作为答案回答。"


def mmbench_cn() -> Made:
    rows = [
        {
            "index": index + k * 1_000_000,
            "question": question,
            "hint": hint,
            "answer": "ABCD"[turned.index(options[0])],
            **{letter: turned[n] if n < len(turned) else None for n, letter in enumerate("ABCD")},
            "category": category,
            "image": picture(index),
            "source": "made",
            "L2-category": "all",
            "comment": "nan",
            "split": "dev",
        }
        for index, hint, question, options, category in MMBENCH_CN
        for k, turned in enumerate(rotations(options))
    ]
    names = texts("question", "hint", "answer", *"ABCD", "category", "source", "L2-category", "comment", "split")
    return "dev", Features({"index": NUMBER, **names, "image": Image()}), rows


def rotations(options: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [options[k:] + options[:k] for k in range(len(options))]


# MM-Vet: open questions that a language model judges.
MMVET = [
    ("v1_0", "What is x in the equation?", "-1<AND>-5", "ocr,math"),
    ("v1_1", "Which room is it?", "kitchen", "rec"),
    ("v1_2", "What is written?", "stop<OR>STOP", "ocr"),
]


def mmvet() -> Made:
    names = texts("question_id", "question", "answer", "image_source", "capability", "imagename")
    rows = [
        {**dict.fromkeys(names, ""), "question_id": i, "image": picture(n), "question": q, "answer": a, "capability": c}
        for n, (i, q, a, c) in enumerate(MMVET)
    ]
    return "test", Features({**names, "image": Image()}), rows


def lettered(options: tuple[str, ...]) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))


REASON = "First please perform reasoning, and think step by step to provide best answer to the following question: \n\n"
PROMPTS: dict[str, list[str]] = {
    "mmstar": [question + LETTER.removesuffix(".") for question, *_ in MMSTAR],
    "ocrbench": [question.strip() for _, question, _, _ in OCRBENCH],
    "chartqa": [question + "\nAnswer the question with a single word." for _, question, _ in CHARTQA],
    "docvqa": [question + SHORT for _, question, _, _ in DOCVQA],
    "infovqa": [question + SHORT for _, question, _, _ in INFOVQA],
    "realworldqa": [question for question, _ in REALWORLDQA],
    "ai2d": [f"{question}\n{lettered(options)}{LETTER}" for question, options, _ in AI2D],
    "refcoco": [WHERE + phrase for _, phrases, _ in REFCOCO for phrase in phrases],
    "chair": ["Please describe this image in detail."] * len(CHAIR),
    "mmbench-cn": [
        f"{'' if hint is None else hint + ' '}{question} There are several options:\n{lettered(turned)}\n{LETTER_CN}"
        for _, hint, question, options, _ in MMBENCH_CN
        for turned in rotations(options)
    ],
    "mmvet": [REASON + question for _, question, _, _ in MMVET],
}
TABLES: dict[str, Callable[[], Made]] = {
    "mmstar": mmstar,
    "ocrbench": ocrbench,
    "chartqa": chartqa,
    "docvqa": docvqa,
    "infovqa": infovqa,
    "realworldqa": realworldqa,
    "ai2d": ai2d,
    "refcoco": refcoco,
    "chair": chair,
    "mmbench-cn": mmbench_cn,
    "mmvet": mmvet,
}

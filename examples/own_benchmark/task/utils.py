"""How a question is shown, asked and scored; lmms-eval loads this file by its path."""

import string


def show(doc):
    """Pictures of a question, as a list of PIL images."""
    return [doc["image"].convert("RGB")]


def ask(doc, lmms_eval_specific_kwargs=None):
    """Text of a question, with the form that the answer takes."""
    return doc["question"] + "\nAnswer the question using a single word or phrase."


def score(doc, results):
    """One number for one answer, under the name of the metric."""
    return {"exact_match": float(plain(results[0]) == plain(doc["answer"]))}


def plain(text):
    """Answer without case, blanks and punctuation around it."""
    return text.strip().lower().strip(string.punctuation + " ")

"""Turns answers and references into exact match and F1 per question; training never imports it.

Both equal those of the official scripts: SQuAD's evaluate-v1.1.py (Rajpurkar et al. 2016) and evaluate-v2.0.py
(Rajpurkar et al. 2018), KorQuAD's evaluate-v1.0.py (Lim et al. 2019). The scripts report percentages.
"""

import re
import string
from collections import Counter

import numpy as np

LOWER_IS_BETTER: tuple[str, ...] = ()

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
KORQUAD_BLANKS = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))


def per_question(
    predictions: list[str], references: list[list[str]], script: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each score as its values and whether each question counts in its mean: float64 and bool [questions]."""
    pairs = zip(predictions, references, strict=True)
    exact, f1 = np.array([question_scores(*pair, script) for pair in pairs]).T
    has_answer = np.array([bool(of_one) for of_one in references])
    everything = np.ones_like(has_answer)
    columns = {"f1": (f1, everything), "exact_match": (exact, everything)}
    if not has_answer.all():
        columns |= {"has_answer_f1": (f1, has_answer), "has_answer_exact_match": (exact, has_answer)}
        columns |= {"no_answer_accuracy": (exact, ~has_answer)}
    return columns


def normalized(text: str, script: str) -> str:
    """Normalize as the official script does: lower case, no punctuation, no (English) articles, no double blanks."""
    if script == "korquad":
        text = text.translate(KORQUAD_BLANKS)
    text = text.lower().translate(PUNCTUATION)
    if script != "korquad":
        text = ARTICLES.sub(" ", text)
    return " ".join(text.split())


def question_scores(prediction: str, references: list[str], script: str) -> tuple[float, float]:
    """Return exact match and F1 of one prediction: the best over the references, as the official script has it.

    A question without references is right without an answer: SQuAD 2.0's rule, where the other scripts have none.
    """
    predicted = normalized(prediction, script)
    expected = [normalized(reference, script) for reference in references]
    if script == "squad2":
        expected = [reference for reference in expected if reference]
    if not expected:
        return float(not predicted), float(not predicted)
    return float(predicted in expected), max(_f1(predicted, reference, script) for reference in expected)


def _f1(predicted: str, expected: str, script: str) -> float:
    """Return the F1 of two normalized texts over words, or over characters for KorQuAD."""
    a, b = (list(text.replace(" ", "")) if script == "korquad" else text.split() for text in (predicted, expected))
    same = (Counter(a) & Counter(b)).total()
    return 2 * same / (len(a) + len(b)) if same else 0.0

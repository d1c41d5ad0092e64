"""The exported folders that are opened, one of each task and kind, and what is asked of each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accelerator import corpora, models, projects
from finetrail.exporting.forms import ONNX_FILES as ONNX_FILES

STAGES = (*projects.PREPARED, "train", "evaluate", "export")
EXPORTED = Path("data/exported")
EXAMPLES = 120
TEXTS = ["Anna lives in New York .", "the train to Oslo left without Kofi"]
CHAT = (
    "{% for message in messages %}{{ message['role'] }}:\n{{ message['content'] }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
CHAT_TOKENS = 96


def plain(folder: Path, recipe: dict[str, Any]) -> None:
    """Leave the recipe as it is."""


class Case(NamedTuple):
    """A task, how its recipe and corpus differ from the task's small ones, and the inputs."""

    task: str
    inputs: list[Any]
    change: Callable[[Path, dict[str, Any]], None] = plain


def pairs(folder: Path, recipe: dict[str, Any]) -> None:
    """Make the classifier one of pairs: does the second text name who the first one does?"""
    texts = corpora.sentences(EXAMPLES)
    rows = [
        {"text": text, "text_pair": other, "label": "same" if text.split()[0] == other.split()[0] else "other"}
        for text, other in zip(texts, texts[1:] + texts[:1], strict=True)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe["corpus"]["reader"]["columns"]["text_pair"] = "text_pair"


def chat(folder: Path, recipe: dict[str, Any]) -> None:
    """Lay prompts and completions out as conversations."""
    of_chats = {"template": None, "chat": {"template": CHAT, "bad_conversations": "refuse"}, "block_size": CHAT_TOKENS}
    recipe["tokenize"] |= of_chats
    recipe["model"]["source"]["config"]["n_positions"] = CHAT_TOKENS


EIGHT = {"max_new_tokens": 8}
PROMPTS = ("Anna lives in >", "the train >")
QUESTION = {"question": "who was it ?", "context": TEXTS[0]}
CASES = {
    "token_classification": Case("token_classification", TEXTS),
    "masked_lm": Case("masked_lm", ["Anna lives in [MASK] ."]),
    "text_classification": Case("text_classification", [{"text": text} for text in TEXTS]),
    "text_classification, pairs": Case(
        "text_classification", [{"text": TEXTS[0], "text_pair": TEXTS[1]}, {"text": TEXTS[1], "text_pair": ""}], pairs
    ),
    "question_answering": Case("question_answering", [QUESTION]),
    "retrieval": Case("retrieval", TEXTS),
    "text_generation": Case("text_generation", [{"prompt": text, "options": EIGHT} for text in PROMPTS]),
    # It has 48 positions, and the tools' default is more; null sets none, so that the folder's max_length is used.
    "text_generation, no length given": Case("text_generation", [{"prompt": PROMPTS[0], "options": {}}]),
    "text_generation, max_new_tokens null": Case(
        "text_generation", [{"prompt": PROMPTS[0], "options": {"max_new_tokens": None}}]
    ),
    "text_generation, chat": Case(
        "text_generation", [{"prompt": [{"role": "user", "content": PROMPTS[0]}], "options": EIGHT}], chat
    ),
}


def make(root: Path) -> dict[str, Path]:
    """Return the exported folder of each case; those that are there already stay as they are."""
    made = {name: root / f"{case.task}-{case.change.__name__}" for name, case in CASES.items()}
    wanted = {folder: CASES[name] for name, folder in made.items() if not folder.exists()}
    jobs = [(prepare(case, folder), STAGES) for folder, case in wanted.items()]
    if jobs and (errors := projects.run(jobs, "cpu", 1)):
        raise SystemExit(f"error: {errors}")
    return {name: folder / EXPORTED for name, folder in made.items()}


def prepare(case: Case, folder: Path) -> Path:
    """Make the project of a case; int8 is kept whatever it loses, and a BERT has BERT's tokenizer, as on the Hub."""
    projects.make(case.task, folder, models.TINY, False, EXAMPLES, epochs=2.0, lr=0.003, precision="fp32")
    [path] = folder.glob(f"recipes/*/{projects.RECIPE}.yaml")
    recipe = json.loads(path.read_text())
    recipe["export"]["int8"] = True
    case.change(folder, recipe)
    path.write_text(json.dumps(recipe))
    config = folder / "base" / "tokenizer_config.json"
    if config.exists():
        named = json.loads(config.read_text()) | {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
        config.write_text(json.dumps(named))
    return folder

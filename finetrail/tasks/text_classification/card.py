"""What a model card says about a model that labels or scores texts."""

import json
from typing import Any

from finetrail.tasks.text_classification.settings import heads_of

PIPELINE_TAG = "text-classification"
LIBRARY = "transformers"

TEXT, PAIR = '"One text."', '{"text": "One text.", "text_pair": "Another."}'
ENCODED = {False: '["One text."]', True: '["One text."], ["Another."]'}
SOFTMAX = "np.exp({0} - {0}.max()) / np.exp({0} - {0}.max()).sum()"
# What becomes of the logits of one text.
ANSWERS = {
    "single_label": f"dict(zip(config.id2label.values(), ({SOFTMAX.format('logits')}).tolist()))",
    "multi_label": "dict(zip(config.id2label.values(), (1 / (1 + np.exp(-logits))).tolist()))",
    "regression": "float(logits[0])",
}


def labels(target: dict[str, Any]) -> list[str]:
    """Return the labels that the model gives; none of a model that gives numbers."""
    return list(target["label_names"])


def folders(target: dict[str, Any] | None) -> list[str]:
    """Return the folder of each head's model inside the exported one; none where the model has one head."""
    return [f"parts/{name}" for name in heads_of(target or {})]


def usage(model: str, target: Any) -> str:
    """Return Python code that runs the exported model, or that of its first head; model is a Hub id or a folder."""
    note = ""
    if of_heads := folders(target):
        model = f"{model}/{of_heads[0]}"
        note = f"# A model for each head, which finetrail.predict takes too: {', '.join(of_heads)}\n"
    if "candidates" in (target or {}):
        return (
            "from sentence_transformers import CrossEncoder\n"
            "\n"
            f'reranker = CrossEncoder("{model}")\n'
            'documents = ["Ada Lovelace was born in London.", "Paris is a city."]\n'
            'print(reranker.rank("Who was born in London?", documents))'
        )
    return (
        f"from transformers import pipeline\n\n{note}"
        f'classifier = pipeline("text-classification", model="{model}", top_k=None)\n'
        f"print(classifier({PAIR if of_pairs(target or {}) else TEXT}))"
    )


def of_pairs(target: dict[str, Any]) -> bool:
    """Tell whether the model reads two texts at once."""
    return len(target.get("texts", [])) > 1


def onnx_usage(target: dict[str, Any]) -> str:
    """Return Python code that gives the probability of each label, or the score; of several heads, of each head."""
    lines = [
        f'encoded = tokenizer({ENCODED[of_pairs(target)]}, truncation=True, return_tensors="np")',
        "inputs = {given.name: encoded[given.name] for given in session.get_inputs()}",
        '[[logits]] = session.run(["logits"], inputs)',
    ]
    if heads := heads_of(target):
        head = "logits[outputs]"
        lines += [
            f"for head, outputs in {json.dumps(heads, ensure_ascii=False)}.items():",
            f"    found = {SOFTMAX.format(head)}",
            "    print(head, {config.id2label[output]: float(found[place]) for place, output in enumerate(outputs)})",
        ]
    else:
        lines.append(f"print({ANSWERS[target['problem']]})")
    return "\n".join(lines)

"""The text of the model card of a model that labels or scores texts."""

import json

from finetrail.tasks.text_classification.settings import Target, heads_of

PIPELINE_TAG = "text-classification"
LIBRARY = "transformers"

TEXT, PAIR = '"One text."', '{"text": "One text.", "text_pair": "Another."}'
ENCODED = {False: '["One text."]', True: '["One text."], ["Another."]'}
SOFTMAX = "np.exp({0} - {0}.max()) / np.exp({0} - {0}.max()).sum()"
# Code that turns the logits of one text into predictions.
ANSWERS = {
    "single_label": f"dict(zip(config.id2label.values(), ({SOFTMAX.format('logits')}).tolist()))",
    "multi_label": "dict(zip(config.id2label.values(), (1 / (1 + np.exp(-logits))).tolist()))",
    "regression": "float(logits[0])",
}


def labels(target: Target) -> list[str]:
    """Return the labels; none if the model predicts numbers."""
    return list(target["label_names"])


def folders(target: Target) -> list[str]:
    """Return the folder of each head's model; none if the model has a single head."""
    return [f"parts/{name}" for name in heads_of(target)]


def usage(model: str, target: Target) -> str:
    """Return code for the exported model, or for the model of its first head."""
    note = ""
    if of_heads := folders(target):
        model = f"{model}/{of_heads[0]}"
        note = f"# A model for each head, which finetrail.predict takes too: {', '.join(of_heads)}\n"
    if "candidates" in target:
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
        f"print(classifier({PAIR if of_pairs(target) else TEXT}))"
    )


def of_pairs(target: Target) -> bool:
    """Return True if the model reads pairs of texts."""
    return len(target.get("texts", [])) > 1


def onnx_usage(target: Target) -> str:
    """Return code that prints the probability of each label, per head if there are several, or the score."""
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

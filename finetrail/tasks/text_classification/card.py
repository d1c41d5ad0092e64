"""What a model card says about a model that labels or scores texts."""

from typing import Any

from finetrail.tasks.text_classification.settings import heads_of

LIBRARY = "transformers"


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
    return (
        f"from transformers import pipeline\n\n{note}"
        f'classifier = pipeline("text-classification", model="{model}", top_k=None)\n'
        'print(classifier("One text."))\n'
        '# A model of pairs: classifier({"text": "One text.", "text_pair": "Another."})'
    )

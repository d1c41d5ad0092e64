"""What a model card says about a model that labels or scores texts."""

from typing import Any

LIBRARY = "transformers"


def labels(target: dict[str, Any]) -> list[str]:
    """Return the labels that the model gives; none of a model that gives numbers."""
    return list(target["label_names"])


def usage(model: str, target: Any) -> str:
    """Return Python code that runs the exported model; model is a Hub id or a folder."""
    return (
        "from transformers import pipeline\n"
        "\n"
        f'classifier = pipeline("text-classification", model="{model}", top_k=None)\n'
        'print(classifier("One text."))\n'
        '# A model of pairs: classifier({"text": "One text.", "text_pair": "Another."})'
    )

"""What a model card says about a model that labels words."""

from typing import Any

from finetrail.tasks.token_classification.settings import Target, label_names

LIBRARY = "transformers"


def labels(target: Target) -> list[str]:
    """Return the labels that the model gives."""
    return label_names(target)


def usage(model: str, target: Any) -> str:
    """Return Python code that runs the exported model; model is a Hub id or a folder."""
    return (
        "from transformers import pipeline\n"
        "\n"
        f'tagger = pipeline("token-classification", model="{model}", aggregation_strategy="first")\n'
        'print(tagger("Ada Lovelace was born in London."))'
    )

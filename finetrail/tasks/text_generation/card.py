"""What a model card says about a model that continues text."""

from typing import Any

LIBRARY = "transformers"


def usage(model: str) -> str:
    """Return Python code that runs the exported model; model is a Hub id or a folder."""
    return (
        "from transformers import pipeline\n"
        "\n"
        f'generator = pipeline("text-generation", model="{model}")\n'
        'print(generator("The minister said", max_new_tokens=40, do_sample=True, top_p=0.95))'
    )


def labels(target: Any) -> list[str]:
    """Return the labels that the model predicts: none, it predicts tokens."""
    return []

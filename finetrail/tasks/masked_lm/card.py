"""What a model card says about a model that fills masks."""

from typing import Any

LIBRARY = "transformers"


def usage(model: str, target: Any) -> str:
    """Return Python code that runs the exported model; model is a Hub id or a folder."""
    return (
        "from transformers import pipeline\n"
        "\n"
        f'fill = pipeline("fill-mask", model="{model}")\n'
        'print(fill(f"The capital of France is {fill.tokenizer.mask_token}."))'
    )


def labels(target: None) -> list[str]:
    """Return the model's labels: it has none."""
    return []

"""What a model card says about a model that continues text."""

from typing import Any

LIBRARY = "transformers"


CHAT = 'generator([{"role": "user", "content": "Hello!"}], max_new_tokens=100)[0]["generated_text"][-1]["content"]'
CONTINUATION = 'generator("The minister said", max_new_tokens=40, do_sample=True, top_p=0.95)'


def usage(model: str, target: Any) -> str:
    """Return Python code that runs the exported model; model is a Hub id or a folder."""
    return (
        "from transformers import pipeline\n"
        "\n"
        f'generator = pipeline("text-generation", model="{model}")\n'
        f"print({CHAT if target['chat'] else CONTINUATION})"
    )


def labels(target: Any) -> list[str]:
    """Return the labels that the model predicts: none, it predicts tokens."""
    return []

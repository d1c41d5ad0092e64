"""What a model card says about a model that fills masks."""

from typing import Any

PIPELINE_TAG = "fill-mask"
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


def onnx_usage(target: Any) -> str:
    """Return Python code that gives the likeliest tokens behind a mask."""
    return """text = f"The capital of France is {tokenizer.mask_token}."
encoded = tokenizer([text], truncation=True, return_tensors="np")
inputs = {given.name: encoded[given.name] for given in session.get_inputs()}
[logits] = session.run(["logits"], inputs)
scores = logits[0, encoded["input_ids"][0].tolist().index(tokenizer.mask_token_id)]
probabilities = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
print([(tokenizer.decode([token]), float(probabilities[token])) for token in probabilities.argsort()[:-6:-1]])"""

"""The text of the model card of a model that fills masks."""

# Optional in tasks/contract.py, and not used here.
folders = None

PIPELINE_TAG = "fill-mask"
LIBRARY = "transformers"


def usage(model: str, target: None) -> str:
    return (
        "from transformers import pipeline\n"
        "\n"
        f'fill = pipeline("fill-mask", model="{model}")\n'
        'print(fill(f"The capital of France is {fill.tokenizer.mask_token}."))'
    )


def labels(target: None) -> list[str]:
    return []


def onnx_usage(target: None) -> str:
    """Return code that prints the most probable tokens for a mask."""
    return """text = f"The capital of France is {tokenizer.mask_token}."
encoded = tokenizer([text], truncation=True, return_tensors="np")
inputs = {given.name: encoded[given.name] for given in session.get_inputs()}
[logits] = session.run(["logits"], inputs)
scores = logits[0, encoded["input_ids"][0].tolist().index(tokenizer.mask_token_id)]
probabilities = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
print([(tokenizer.decode([token]), float(probabilities[token])) for token in probabilities.argsort()[:-6:-1]])"""

"""What a model card says about a model that labels words."""

from typing import Any

from finetrail.tasks.token_classification.settings import Target, label_names

PIPELINE_TAG = "token-classification"
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


def onnx_usage(target: Any) -> str:
    """Return Python code that labels words by the first of their tokens, as training does."""
    return """words = ["Ada", "Lovelace", "was", "born", "in", "London", "."]
encoded = tokenizer([words], is_split_into_words=True, truncation=True, return_tensors="np")
inputs = {given.name: encoded[given.name] for given in session.get_inputs()}
[logits] = session.run(["logits"], inputs)
places = encoded.word_ids(0)  # of each token, the word that it is of
found = [config.id2label[int(logits[0, places.index(word)].argmax())] for word in range(len(words)) if word in places]
print(list(zip(words, found)))"""

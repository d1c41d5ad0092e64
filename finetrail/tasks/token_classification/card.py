"""The text of the model card of a model that labels words."""

from finetrail.tasks.token_classification.settings import Target, label_names

# Optional in tasks/contract.py, and not used here.
folders = None

PIPELINE_TAG = "token-classification"
LIBRARY = "transformers"


def labels(target: Target) -> list[str]:
    return label_names(target)


def usage(model: str, target: Target) -> str:
    return (
        "from transformers import pipeline\n"
        "\n"
        f'tagger = pipeline("token-classification", model="{model}", aggregation_strategy="first")\n'
        'print(tagger("Ada Lovelace was born in London."))'
    )


def onnx_usage(target: Target) -> str:
    """Return code that labels each word by its first token, as in training."""
    return """words = ["Ada", "Lovelace", "was", "born", "in", "London", "."]
encoded = tokenizer([words], is_split_into_words=True, truncation=True, return_tensors="np")
inputs = {given.name: encoded[given.name] for given in session.get_inputs()}
[logits] = session.run(["logits"], inputs)
places = encoded.word_ids(0)  # of each token, the word that it is of
found = [config.id2label[int(logits[0, places.index(word)].argmax())] for word in range(len(words)) if word in places]
print(list(zip(words, found)))"""

"""What a model card says about a model that labels words."""

LIBRARY = "transformers"


def labels(label_names: list[str]) -> list[str]:
    """Return the labels that the model gives."""
    return label_names


def usage(model: str) -> str:
    """Return Python code that runs the exported model; model is a Hub id or a folder."""
    return (
        "from transformers import pipeline\n"
        "\n"
        f'tagger = pipeline("token-classification", model="{model}", aggregation_strategy="simple")\n'
        'print(tagger("Ada Lovelace was born in London."))'
    )

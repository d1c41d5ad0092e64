"""What a model card says about a model that embeds queries and documents."""

from typing import Any

LIBRARY = "sentence-transformers"


def labels(target: dict[str, Any]) -> list[str]:
    """Return the labels that the model gives: none."""
    return []


def usage(model: str, target: Any) -> str:
    """Return Python code that runs the exported model; model is a Hub id or a folder."""
    return (
        "from sentence_transformers import SentenceTransformer\n"
        "\n"
        f'model = SentenceTransformer("{model}")\n'
        'queries = model.encode_query(["Who was born in London?"])\n'
        'documents = model.encode_document(["Ada Lovelace was born in London.", "Paris is a city."])\n'
        "print(model.similarity(queries, documents))"
    )

"""The text of the model card of a model that embeds queries and documents."""

from finetrail.tasks.retrieval.settings import Target

# Optional in tasks/contract.py, and not used here.
folders = None

PIPELINE_TAG = "sentence-similarity"
LIBRARY = "sentence-transformers"


def labels(target: Target) -> list[str]:
    return []


def usage(model: str, target: Target) -> str:
    return (
        "from sentence_transformers import SentenceTransformer\n"
        "\n"
        f'model = SentenceTransformer("{model}")\n'
        'queries = model.encode_query(["Who was born in London?"])\n'
        'documents = model.encode_document(["Ada Lovelace was born in London.", "Paris is a city."])\n'
        "print(model.similarity(queries, documents))"
    )


POOLED = {
    "cls": "hidden[:, 0]",
    "mean": "(hidden * mask).sum(1) / mask.sum(1)",
}


def onnx_usage(target: Target) -> str:
    """Return code that embeds texts as in training: with a prefix, truncated, pooled and normalized to length 1."""
    return f"""def embed(texts, prefix):
    texts = [prefix + text for text in texts]
    encoded = tokenizer(texts, truncation=True, max_length={target["max_length"]}, padding=True, return_tensors="np")
    inputs = {{given.name: encoded[given.name] for given in session.get_inputs()}}
    [hidden] = session.run(["last_hidden_state"], inputs)
    mask = encoded["attention_mask"][..., None]
    pooled = {POOLED[target["pooling"]]}
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


queries = embed(["Who was born in London?"], {target["query_prefix"]!r})
documents = embed(["Ada Lovelace was born in London.", "Paris is a city."], {target["document_prefix"]!r})
print(queries @ documents.T)"""

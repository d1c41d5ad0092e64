"""What a model card says about a model that labels or scores texts."""

from typing import Any

from finetrail.tasks.text_classification.settings import heads_of

LIBRARY = "transformers"


def labels(target: dict[str, Any]) -> list[str]:
    """Return the labels that the model gives; none of a model that gives numbers."""
    return list(target["label_names"])


def usage(model: str, target: Any) -> str:
    """Return Python code that runs the exported model, or that of its first head; model is a Hub id or a folder."""
    if heads := heads_of(target or {}):
        folders = [f"parts/{name}" for name in heads]
        model = f"{model}/{folders[0]}"
        note = f"# A model for each head, which finetrail.predict takes too: {', '.join(folders)}\n"
    else:
        note = ""
    if "candidates" in (target or {}):
        return (
            "from sentence_transformers import CrossEncoder\n"
            "\n"
            f'reranker = CrossEncoder("{model}")\n'
            'documents = ["Ada Lovelace was born in London.", "Paris is a city."]\n'
            'print(reranker.rank("Who was born in London?", documents))'
        )
    return (
        f"from transformers import pipeline\n\n{note}"
        f'classifier = pipeline("text-classification", model="{model}", top_k=None)\n'
        'print(classifier("One text."))\n'
        '# A model of pairs: classifier({"text": "One text.", "text_pair": "Another."})'
    )

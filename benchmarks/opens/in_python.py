"""Answers with one Python tool, alone: python in_python.py TOOL FILE OUTPUT, with cases as JSON on stdin.

An answer is what people see, words and numbers. This file runs with old releases too, and imports nothing of ours.
"""

import json
import sys
from pathlib import Path

# FILE: of optimum, the ONNX file; with "" it chooses itself.
TOOL, FILE, OUTPUT = sys.argv[1:]
TASKS = {
    "token_classification": ("token-classification", "TokenClassification"),
    "masked_lm": ("fill-mask", "MaskedLM"),
    "text_classification": ("text-classification", "SequenceClassification"),
    "question_answering": ("question-answering", "QuestionAnswering"),
    "retrieval": ("feature-extraction", "FeatureExtraction"),
    "text_generation": ("text-generation", "CausalLM"),
}


def load(task, folder):
    """Return model and tokenizer."""
    from transformers import AutoTokenizer

    kind = TASKS[task][1]
    if TOOL == "optimum":
        import optimum.onnxruntime as library

        options = {"file_name": FILE, "subfolder": "onnx"} if FILE else {}
        model = getattr(library, f"ORTModelFor{kind}").from_pretrained(folder, **options)
    else:
        import transformers as library

        name = "AutoModel" if kind == "FeatureExtraction" else f"AutoModelFor{kind}"
        model = getattr(library, name).from_pretrained(folder)
    return model, AutoTokenizer.from_pretrained(folder)


def answer(task, folder, inputs):
    if TOOL == "sentence_transformers":
        from sentence_transformers import SentenceTransformer

        return [], SentenceTransformer(folder).encode_query(inputs).ravel().tolist()
    import torch

    model, tokenizer = load(task, folder)
    if task == "retrieval":
        encoded = tokenizer(inputs, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**encoded).last_hidden_state
        mask = encoded["attention_mask"][..., None]
        vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        return [], vectors.ravel().tolist()
    if task == "question_answering":
        return [best_span(model, tokenizer, **given) for given in inputs], []
    from transformers import pipeline

    run = pipeline(TASKS[task][0], model=model, tokenizer=tokenizer)
    if task == "text_generation":
        said = [run(given["prompt"], do_sample=False, **given["options"])[0]["generated_text"] for given in inputs]
        return [text if isinstance(text, str) else text[-1]["content"] for text in said], []
    if task == "token_classification":
        found = [token for text in inputs for token in run(text, ignore_labels=[])]
        return [token["entity"] for token in found], [float(token["score"]) for token in found]
    if task == "masked_lm":
        found = [choice for text in inputs for choice in run(text, top_k=3)]
        return [choice["token_str"] for choice in found], [choice["score"] for choice in found]
    found = [sorted(run(text, top_k=None), key=lambda one: one["label"]) for text in inputs]
    return [one["label"] for labels in found for one in labels], [one["score"] for labels in found for one in labels]


def best_span(model, tokenizer, question, context):
    """Return the likeliest answer; transformers 5 has no pipeline for it."""
    import torch

    inputs = tokenizer(question, context, return_offsets_mapping=True, return_tensors="pt")
    offsets = inputs.pop("offset_mapping")[0].tolist()
    inside = torch.tensor([text == 1 for text in inputs.sequence_ids()])
    with torch.inference_mode():
        outputs = model(**inputs)
    start, end = (logits[0].masked_fill(~inside, -1e9) for logits in (outputs.start_logits, outputs.end_logits))
    best = (start[:, None] + end[None]).triu().masked_fill(~torch.ones(len(start), len(end)).triu().bool(), -1e9)
    first, last = divmod(best.argmax().item(), len(end))
    return context[offsets[first][0] : offsets[last][1]]


def main():
    found = {}
    for case in json.load(sys.stdin):
        try:
            words, numbers = answer(case["task"], case["folder"], case["inputs"])
            found[case["name"]] = {"words": words, "numbers": numbers}
        except Exception as error:
            found[case["name"]] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    Path(OUTPUT).write_text(json.dumps(found))


if __name__ == "__main__":
    main()

"""The text of the model card of a model that answers questions from a context."""

from finetrail.tasks.question_answering.settings import Target

# Optional in tasks/contract.py, and not used here.
folders = None

PIPELINE_TAG = "question-answering"
LIBRARY = "transformers"


def labels(target: Target) -> list[str]:
    return []


def usage(model: str, target: Target) -> str:
    """Return code that answers from one window of the context; transformers 5 has no pipeline for this task."""
    return f'''import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{model}")
model = AutoModelForQuestionAnswering.from_pretrained("{model}")
question, context = "Where was Ada Lovelace born?", "Ada Lovelace was born in London in 1815."
inputs = tokenizer(question, context, truncation="only_second", return_offsets_mapping=True, return_tensors="pt")
offsets = inputs.pop("offset_mapping")[0].tolist()
outside = torch.tensor([text != 1 for text in inputs.sequence_ids()])
with torch.inference_mode():
    outputs = model(**{{name: inputs[name] for name in inputs if name in tokenizer.model_input_names}})
start = outputs.start_logits[0].masked_fill(outside, -torch.inf).argmax().item()
end = outputs.end_logits[0, start:].masked_fill(outside[start:], -torch.inf).argmax().item() + start
# Some tokenizers begin a word one letter late. Characters in no token belong to the next token.
begin = min(offsets[start][0], offsets[start - 1][1])
print(context[begin : offsets[end][1]].strip())
# Long contexts, other candidates and no answer: python -m finetrail.predict {model} --input questions.jsonl'''


def onnx_usage(target: Target) -> str:
    """Return code that finds the most probable span in one window of the context."""
    return """question, context = "Where was Ada Lovelace born?", "Ada Lovelace was born in London in 1815."
encoded = tokenizer([question], [context], truncation="only_second", return_offsets_mapping=True, return_tensors="np")
inputs = {given.name: encoded[given.name] for given in session.get_inputs()}
logits = session.run(["start_logits", "end_logits"], inputs)
inside = np.array([text == 1 for text in encoded.sequence_ids(0)])  # the tokens of the context
starts, ends = (np.where(inside, scores[0], -np.inf) for scores in logits)
start = int(starts.argmax())
end = start + int(ends[start:].argmax())
offsets = encoded["offset_mapping"][0]
# Some tokenizers begin a word one letter late. Characters in no token belong to the next token.
print(context[min(offsets[start][0], offsets[start - 1][1]) : offsets[end][1]].strip())"""

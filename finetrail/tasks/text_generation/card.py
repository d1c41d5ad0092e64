"""The text of the model card of a model that continues text."""

import json

from finetrail.tasks.text_generation.settings import PLACE, Target

# Optional in tasks/contract.py, and not used here.
folders = None

PIPELINE_TAG = "text-generation"
LIBRARY = "transformers"


CHAT = [{"role": "user", "content": "Hello!"}]
PROMPT = "The minister said"
NEW_TOKENS = 40


def usage(model: str, target: Target) -> str:
    text = json.dumps(CHAT if target["chat"] else prompted(target), ensure_ascii=False)
    said = '[0]["generated_text"]' + ('[-1]["content"]' if target["chat"] else "")
    return (
        "from transformers import pipeline\n"
        "\n"
        f'generator = pipeline("text-generation", model="{model}")\n'
        f"print(generator({text}, max_new_tokens={new_tokens(target)}, do_sample=True, top_p=0.95){said})"
    )


def prompted(target: Target) -> str:
    """Return a prompt, laid out as in training."""
    return str(target["template"] or PLACE).replace(PLACE, PROMPT)


def new_tokens(target: Target) -> int:
    """Return the number of tokens that the examples request: half the training length, so that the prompt has room."""
    return min(NEW_TOKENS, int(target["block_size"]) // 2)


def labels(target: Target) -> list[str]:
    return []


def onnx_usage(target: Target) -> str:
    """Return code for greedy decoding with cached keys and values."""
    asked = f"tokenizer.apply_chat_template({json.dumps(CHAT)}, add_generation_prompt=True, tokenize=False)"
    text = asked if target["chat"] else json.dumps(prompted(target), ensure_ascii=False)
    return f"""text = {text}
ids = tokenizer([text], add_special_tokens=False, return_tensors="np")["input_ids"]
asked, new = ids.shape[1], ids
shapes = {{given.name: given.shape for given in session.get_inputs() if given.name.startswith("past_key_values.")}}
past = {{name: np.zeros((1, heads, 0, width), np.float32) for name, (_, heads, _, width) in shapes.items()}}
for _ in range({new_tokens(target)}):
    positions = np.arange(ids.shape[1] - new.shape[1], ids.shape[1])[None]
    inputs = {{"input_ids": new, "attention_mask": np.ones_like(ids), "position_ids": positions}}
    logits, *present = session.run(None, inputs | past)
    new, past = logits[:, -1:].argmax(-1), dict(zip(past, present))
    if new.item() == tokenizer.eos_token_id:
        break
    ids = np.concatenate([ids, new], 1)
print(tokenizer.decode(ids[0, asked:]))"""

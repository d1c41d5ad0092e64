"""How many tokens a model takes, asked of the models themselves."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from finetrail.encoding.tokenizer import BEHIND_PADDING, model_positions

SIZES: dict[str, Any] = {
    "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
    "max_position_embeddings": 18, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
OF_A_KIND = {
    "longformer": {"attention_window": 4},
    "luke": {"entity_vocab_size": 5, "entity_emb_size": 8},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}


@pytest.mark.parametrize("kind", sorted(BEHIND_PADDING | {"albert", "bert", "electra"}))
def test_a_model_takes_exactly_as_many_tokens_as_positions(kind: str) -> None:
    config = AutoConfig.for_model(kind, **SIZES, **OF_A_KIND.get(kind, {}))
    model = AutoModel.from_config(config).eval()
    limit = model_positions(config)
    assert limit == (16 if kind in BEHIND_PADDING else 18)
    with torch.no_grad():
        model(input_ids=torch.full((1, limit), 5), attention_mask=torch.ones(1, limit, dtype=torch.long))
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            model(input_ids=torch.full((1, limit + 4), 5), attention_mask=torch.ones(1, limit + 4, dtype=torch.long))

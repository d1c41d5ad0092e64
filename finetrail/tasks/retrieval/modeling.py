"""Turns a base model's folder into a bi-encoder with its loss, and features into its batches."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import MODEL_MAPPING, AutoModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from finetrail.encoding import padding
from finetrail.errors import UserError
from finetrail.model.loading import checked
from finetrail.tasks.retrieval.settings import Target, Train

# Optional in tasks/contract.py, and not used here.
TEACHING = finish = None

COLUMNS = ("input_ids", "document_input_ids", "documents", "relevant")
# Each query is compared with the documents of the whole batch, so a part of it has another loss. If memory is short,
# the model encodes the texts of a batch in parts (BiEncoder.embed_in_parts).
SEPARABLE = False

# All releases of sentence-transformers since 2.0 know these names. 6.2 itself would write paths that older ones lack.
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


@dataclass
class BiEncoderOutput(ModelOutput):
    """The loss, and the vectors that validation ranks: float [batch, width]."""

    loss: torch.Tensor | None = None
    queries: torch.Tensor | None = None
    documents: torch.Tensor | None = None


class BiEncoder(PreTrainedModel):
    """One encoder for queries and documents. It has no other weights, so it is saved as the encoder."""

    base_model_prefix = "encoder"
    # transformers 5.23 asks the outer model for what the encoder, which it has loaded already, was asked for before.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, encoder: PreTrainedModel, target: Target, scale: float) -> None:
        super().__init__(encoder.config)
        self.encoder, self.target, self.scale = encoder, target, scale
        # Number of features of a training batch that are encoded at once; None: all.
        self.micro_batch_size: int | None = None

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        document_input_ids: torch.Tensor,
        document_attention_mask: torch.Tensor,
        documents: torch.Tensor,
        relevant: torch.Tensor,
        labels: torch.Tensor | None = None,
        packing: dict[str, Any] | None = None,
        document_packing: dict[str, Any] | None = None,
    ) -> BiEncoderOutput:
        """Compare each query [batch, length] with the documents of the whole batch [batch, given, length].

        documents: their keys [batch, given], the relevant one first; relevant: keys [batch, n], for each query. labels
        are not used: the Trainer (5.23) computes a validation loss only for batches that have some. packing,
        document_packing: of the texts, where the encoder computes them without padding.
        """
        given = documents.shape[1]
        queries = self.embed_in_parts(input_ids, attention_mask, packing, 1)
        flat = (document_input_ids.flatten(0, 1), document_attention_mask.flatten(0, 1))
        vectors = self.embed_in_parts(*flat, document_packing, given)
        same_query = (input_ids[:, None] == input_ids[None]).all(-1)
        excluded = no_negatives(same_query, documents, relevant)
        own = torch.arange(len(queries), device=queries.device) * given
        losses = [
            in_batch_loss(shortened(queries, width), shortened(vectors, width), excluded, own, self.scale)
            for width in (queries.shape[1], *(self.target["dimensions"] or []))
        ]
        return BiEncoderOutput(loss=torch.stack(losses).sum(), queries=queries, documents=vectors[own])

    def embed_in_parts(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, packing: dict[str, Any] | None, given: int
    ) -> torch.Tensor:
        """Return what embed() does; in training it encodes micro_batch_size features, of `given` texts each, at once.

        The backward pass encodes each part again, with the same dropout, once the gradient of its vectors is known
        (GradCache, Gao et al. 2021). The texts of a part have similar lengths.
        """
        at_once = given * (self.micro_batch_size or len(input_ids))
        if at_once >= len(input_ids) or not torch.is_grad_enabled():
            return self.embed(input_ids, attention_mask, packing)
        lengths = attention_mask.sum(1)
        order = lengths.argsort(descending=True, stable=True)
        parts = []
        for rows in order.split(at_once):
            width = int(lengths[rows[0]])
            part = (input_ids[rows, :width], attention_mask[rows, :width])
            parts.append(checkpoint(self.embed, *part, use_reentrant=False))
        return torch.cat(parts)[order.argsort()]

    def embed(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, packing: dict[str, Any] | None = None
    ) -> torch.Tensor:
        """Return a vector of length 1 for each text, in float32: [texts, width]."""
        more = {} if packing is None else {"packing": packing}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state.float()
        if self.target["pooling"] == "cls":
            pooled = hidden[:, 0]
        else:
            mask = attention_mask[..., None].to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return functional.normalize(pooled, dim=-1)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the encoder's weights under its own names, which checkpoints have too."""
        return self.encoder.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load what state_dict() gave, as the Trainer does with its best checkpoint."""
        return self.encoder.load_state_dict(state_dict, strict, assign)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write a folder that AutoModel and, with its tokenizer, sentence-transformers load."""
        self.encoder.save_pretrained(save_directory, *args, **kwargs)
        folder = Path(save_directory)
        pooling, width = self.target["pooling"], self.config.hidden_size
        prompts = {"query": self.target["query_prefix"], "document": self.target["document_prefix"]}
        files: dict[str, Any] = {
            "modules.json": MODULES,
            "sentence_bert_config.json": {"max_seq_length": self.target["max_length"], "do_lower_case": False},
            "config_sentence_transformers.json": {"prompts": prompts, "similarity_fn_name": "cosine"},
            "1_Pooling/config.json": {
                "word_embedding_dimension": width,
                "pooling_mode_cls_token": pooling == "cls",
                "pooling_mode_mean_tokens": pooling == "mean",
                "include_prompt": True,
            },
        }
        (folder / "1_Pooling").mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def shortened(vectors: torch.Tensor, width: int) -> torch.Tensor:
    """Return the first `width` numbers of vectors [n, whole], normalized to length 1: [n, width]."""
    return vectors if width == vectors.shape[1] else functional.normalize(vectors[:, :width], dim=-1)


def no_negatives(same_query: torch.Tensor, documents: torch.Tensor, relevant: torch.Tensor) -> torch.Tensor:
    """Return which documents of the batch are no negatives of which query: bool [batch, batch * given].

    These are documents with a judgement for the query, relevant documents of queries with the same text, and
    repetitions of an earlier document of the batch.
    """
    flat = documents.flatten()
    judged = (flat[None, :, None] == relevant[:, None, :]).any(-1)
    of_same = torch.zeros(len(documents), *documents.shape, dtype=torch.bool, device=documents.device)
    of_same[:, :, 0] = same_query
    again = (flat[:, None] == flat[None]).tril(-1).any(-1)
    return judged | of_same.flatten(1) | again


def in_batch_loss(
    queries: torch.Tensor, documents: torch.Tensor, excluded: torch.Tensor, own: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return the mean cross-entropy of each query's own document among all of the batch (Henderson et al. 2017).

    queries: [batch, width], documents: [n, width], of length 1; excluded: bool [batch, n], documents that are no
    negatives of a query; own: the index of its document. MultipleNegativesRankingLoss where nothing is excluded.
    """
    similarity = queries @ documents.T * scale
    # Setting the element of the own document would copy a number to the device and wait for the copy.
    others = torch.arange(excluded.shape[1], device=own.device) != own[:, None]
    return functional.cross_entropy(similarity.masked_fill(excluded & others, -torch.inf), own)


def notes(base_model: Path) -> list[str]:
    return []


def build_model(base_model: Path, target: Target, settings: Train, train: Dataset) -> PreTrainedModel:
    """Load a pretrained encoder. UserError if the checkpoint lacks weights, which would be random."""
    encoder, drawn = checked(base_model, AutoModel, MODEL_MAPPING)
    # A masked language model has no pooler, and the mean of token vectors needs none.
    missing = sorted(name for name in drawn if not name.startswith("pooler."))
    if missing:
        raise UserError(
            f"{base_model}: {len(missing)} weights of the encoder are not in its safetensors with the shape that "
            f"config.json gives them, such as {missing[0]}; expected those of a {encoder.config.model_type} model"
        )
    if encoder.config.is_encoder_decoder:
        raise UserError(f"{base_model}: {encoder.config.model_type} has a decoder; expected an encoder alone")
    declare_dimensions(encoder.config, target["dimensions"], base_model)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler.requires_grad_(False)  # kept in the saved encoder, but no gradient reaches it
    return BiEncoder(encoder, target, settings.scale)


def declare_dimensions(config: Any, dimensions: list[int] | None, base_model: Path) -> None:
    """Write the usable lengths of the model's vectors into its config, as servers such as vLLM read it.

    UserError if one is not shorter than the vectors.
    """
    if dimensions is not None and dimensions[-1] >= config.hidden_size:
        raise UserError(
            f"tokenize.dimensions: {dimensions[-1]}, and vectors of {base_model} have {config.hidden_size}; "
            "expected fewer, because the full size is always included"
        )
    if dimensions is None:  # the base model's own may not be usable after training
        vars(config).pop("matryoshka_dimensions", None)
    else:
        config.matryoshka_dimensions = [*dimensions, config.hidden_size]


def build_collator(
    tokenizer: PreTrainedTokenizerBase, settings: Train
) -> Callable[[pa.Table], dict[str, torch.Tensor]]:
    """Return the function that pads queries and documents.

    If a feature has fewer documents than others, its relevant document is repeated. A repetition is never a negative.
    """

    def collate(features: pa.Table) -> dict[str, torch.Tensor]:
        (keys, given), (relevant, known) = padding.runs(features["documents"]), padding.runs(features["relevant"])
        chosen = _repeated(given)
        texts = features["document_input_ids"].combine_chunks().flatten().take(pa.array(chosen.ravel()))
        document_ids, document_mask = _padded(texts, tokenizer.pad_token_id)
        ids, mask = _padded(features["input_ids"], tokenizer.pad_token_id)
        arrays = {
            "input_ids": ids,
            "attention_mask": mask,
            "document_input_ids": document_ids.reshape(*chosen.shape, -1),
            "document_attention_mask": document_mask.reshape(*chosen.shape, -1),
            "documents": keys[chosen],
            "relevant": relevant[_repeated(known)],
            "labels": np.arange(len(features)),
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return collate


def num_items(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Count the queries."""
    return torch.tensor(len(batch["input_ids"]))


def reduce(logits: tuple[torch.Tensor, torch.Tensor], labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vectors of queries and of their documents, unchanged."""
    return logits


def _repeated(lengths: np.ndarray) -> np.ndarray:
    """Return the places of the values of runs with these lengths, padded with the first of each: [runs, longest]."""
    place = np.arange(lengths.max())
    return (np.cumsum(lengths) - lengths)[:, None] + np.where(place < lengths[:, None], place, 0)


def _padded(texts: pa.ChunkedArray | pa.Array, pad_token_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and attention mask, padded on the right: int64 [texts, length]."""
    ids, lengths = padding.runs(texts)
    return padding.filled(ids, lengths, pad_token_id), padding.filled(np.ones_like(ids), lengths, 0)

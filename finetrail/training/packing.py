"""Padding-free training: a batch is computed as one row of all its tokens.

1. The collator gives a batch [features, length] with padding, as for any model.
2. `Packer` finds, on the CPU, where the tokens are: one row of all tokens, their positions, and the features' bounds.
3. A hook replaces the base model's batch by that row [1, tokens].
4. Each layer attends within features (`attend`): on a GPU by flash attention for variable lengths.
5. What the head reads leaves the base model: the first token of each feature [features, 1, width], the tokens with
   labels [1, labelled, width], or all of them, with padding again [features, length, width].

Losses and gradients are those of the padded batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AttentionInterface,
    PreTrainedModel,
)

from finetrail.labels import IGNORE_INDEX
from finetrail.patches import flash_attention
from finetrail.patches.architectures import LIKE_BERT, fills_masks, has_head

NAME = "finetrail_packed"
# Architectures whose layers pass `packing` on to attention, and those of them whose positions begin after the id of
# the padding token.
ENCODERS = LIKE_BERT | {"distilbert", "modernbert"}
SUPPORTED = ENCODERS | {"gpt2", "llama"}
POSITIONS_BEHIND_PADDING = {"camembert", "roberta", "xlm-roberta"}
# Flash attention in torch (2.11 to 2.13).
HALF_PRECISION = ("bf16", "fp16")
LOWEST_CAPABILITY = (8, 0)  # Ampere
HEAD_WIDTHS = range(8, 193, 8)  # wider ones have gradients on some GPUs only
# If batches shall have few shapes, counts are rounded up to a multiple of a 16th of the power of two below them, by at
# most 6%, and lengths to a multiple of 64. Labels are rounded to a multiple of a fourth if few tokens have one: their
# count varies more, and the head costs less.
STEPS, STEPS_OF_FEW = 16, 4
LENGTHS = 64

# The part of the base model's hidden states that the head reads.
FIRST, LABELLED, NEXT, ALL = "first", "labelled", "next", "all"

Batch = dict[str, Any]


def applies(model: PreTrainedModel, precision: str) -> bool:
    """Return True if a model trains without padding here: a supported one on an NVIDIA GPU, in half precision.

    On a CPU, and in fp32, batches are split into micro-batches of similar length instead.
    """
    on_cuda = torch.version.cuda is not None and torch.cuda.is_available()
    if not on_cuda or torch.cuda.get_device_capability() < LOWEST_CAPABILITY or not flash_attention.is_known():
        return False
    return precision in HALF_PRECISION and supported(model) and _head_width(model) in HEAD_WIDTHS


def supported(model: PreTrainedModel) -> bool:
    """Return True if the hooks of this module know the model's architecture."""
    config = model.config
    encodes = config.model_type not in ENCODERS or not getattr(config, "is_decoder", False)
    return config.model_type in SUPPORTED and encodes and config._attn_implementation == "sdpa"


def _head_width(model: PreTrainedModel) -> int:
    config = model.config
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def use(model: PreTrainedModel, rounds: bool, compiles: bool) -> "Packer":
    """Make a model compute batches without padding, and return the packer of its batches. The weights do not change.

    rounds: round up token counts and lengths, so that batches have few different shapes.
    compiles: torch.compile follows, which (2.13) does not call hooks inside layers.
    """
    AttentionInterface.register(NAME, attend)  # without a mask function: transformers makes no mask
    model.set_attn_implementation(NAME)
    base: Any = model.base_model
    packer = Packer(_reads(model), _first_position(model.config), model.config.pad_token_id or 0, rounds)
    # As early as possible: three quarters of BERT's last layer follow its attention.
    early = packer.reads != ALL and model.config.model_type in LIKE_BERT and not compiles
    inside = []
    if early:
        inside.append(base.encoder.layer[-1].attention.output)
        inside[-1].register_forward_pre_hook(partial(_take_inputs, packer))
    if getattr(base, "pooler", None) is not None and not (early and packer.reads == FIRST):
        inside.append(base.pooler)
        inside[-1].register_forward_pre_hook(_take_first)
    model.register_forward_pre_hook(partial(_replace_labels, packer), with_kwargs=True)
    base.register_forward_pre_hook(partial(_replace_inputs, packer, inside), with_kwargs=True)
    base.register_forward_hook(partial(_take_output, packer, early), with_kwargs=True)
    return packer


def _reads(model: PreTrainedModel) -> str:
    """Return the part of the hidden states that the model's head reads."""
    config = model.config
    if has_head(model, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING) and config.model_type in ENCODERS:
        return FIRST if getattr(config, "classifier_pooling", "cls") == "cls" else ALL
    if fills_masks(model) or has_head(model, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING):
        return LABELLED
    return NEXT if has_head(model, MODEL_FOR_CAUSAL_LM_MAPPING) else ALL


def _first_position(config: Any) -> int:
    return config.pad_token_id + 1 if config.model_type in POSITIONS_BEHIND_PADDING else 0


@dataclass(frozen=True)
class Packer:
    """Packs the tokens of a padded batch.

    reads: states that the head reads. first_position: the position id of a feature's first token. rounds: see `use`.
    """

    reads: str
    first_position: int
    pad_token_id: int
    rounds: bool

    def collator(self, collate: Callable[[Any], Batch]) -> Callable[[Any], Batch]:
        """Return a collator that adds the packing of each of its batch's texts."""

        def packed(features: Any) -> Batch:
            batch = dict(collate(features))
            for name in [name for name in batch if name.endswith("input_ids")]:
                prefix = name.removesuffix("input_ids")
                if self.rounds:
                    batch |= self._longer(batch, prefix)
                batch[f"{prefix}packing"] = self.pack(
                    batch[name],
                    batch[f"{prefix}attention_mask"],
                    batch.get(f"{prefix}token_type_ids"),
                    batch.get(f"{prefix}labels"),
                )
            return batch

        return packed

    def _longer(self, batch: Batch, prefix: str) -> Batch:
        """Return the tensors of a batch [..., length] with the length rounded up."""
        length = batch[f"{prefix}input_ids"].shape[-1]
        fill = {"input_ids": self.pad_token_id, "attention_mask": 0, "token_type_ids": 0, "labels": IGNORE_INDEX}
        tensors = {f"{prefix}{name}": value for name, value in fill.items() if f"{prefix}{name}" in batch}
        return {
            name: functional.pad(batch[name], (0, -length % LENGTHS), value=value)
            for name, value in tensors.items()
            if batch[name].ndim > 1 and batch[name].shape[-1] == length
        }

    def pack(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None,
        labels: torch.Tensor | None,
    ) -> Batch:
        """Return the tokens of a batch as one row. All arguments are [..., length], labels perhaps [features].

        input_ids, token_type_ids, position_ids: int64 [1, tokens].
        places: where each token is in the flattened batch [features * length], int64 [tokens]. Tokens that only round
            up the count are one place after its end.
        bounds: of the features in the row, int32 [features + 1], more with rounding.
        kept: the tokens of the row that the head reads, int64; absent if it reads all.
        labels: int64 [1, kept], if the kept tokens are those with labels.
        """
        mask = attention_mask.flatten(0, -2).bool()
        longest = mask.shape[1]
        lengths = mask.sum(-1)
        places = mask.flatten().nonzero()[:, 0]
        count = len(places)
        bounds = functional.pad(lengths.cumsum(0), (1, 0))
        positions = torch.arange(count, device=mask.device) - bounds[:-1].repeat_interleave(lengths)
        filled = self.rounded(count, STEPS) - count
        if self.rounds:  # filled tokens form features too, not longer than others, and equally many for each count
            most = step(count + filled, STEPS)
            ends = torch.arange(longest, most + longest, longest, device=mask.device)
            bounds_of_all = torch.cat([bounds, count + ends.clamp(max=filled)])
        packing: Batch = {
            "input_ids": _filled(input_ids.flatten()[places], filled)[None],
            "position_ids": _filled(positions + self.first_position, filled)[None],
            "places": _filled(places, filled, mask.numel()),
            "bounds": (bounds_of_all if self.rounds else bounds).int(),
            "longest": longest,
            "shape": tuple(mask.shape),
        }
        if token_type_ids is not None:
            packing["token_type_ids"] = _filled(token_type_ids.flatten()[places], filled)[None]
        if self.reads == FIRST:
            packing["kept"] = bounds[:-1]
        if self.reads in (LABELLED, NEXT) and labels is not None:
            known = functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX) if self.reads == NEXT else labels
            known = known.flatten()[places]
            kept = (known != IGNORE_INDEX).nonzero()[:, 0]
            more = self.rounded(len(kept), STEPS if 2 * len(kept) > count else STEPS_OF_FEW) - len(kept)
            # Distinct tokens: a GPU would add the gradients of a repeated token one after the other.
            packing["kept"] = torch.cat([kept, torch.arange(more, device=mask.device)])
            packing["labels"] = _filled(known[kept], more, IGNORE_INDEX)[None]
        return packing

    def rounded(self, count: int, steps: int) -> int:
        """Return the rounded count for so many tokens or labels."""
        return count + -count % step(count, steps) if self.rounds else count


def step(count: int, steps: int) -> int:
    """Return the number to whose multiple counts of about this size are rounded up: `steps` per power of two."""
    return max(2 ** (count.bit_length() - 1) // steps, 1) if count else 1


def _filled(values: torch.Tensor, count: int, value: int = 0) -> torch.Tensor:
    return functional.pad(values, (0, count), value=value)


def _replace_labels(packer: Packer, model: Any, args: Any, inputs: Batch) -> Any:
    """In training, give the head the labels of the tokens that it gets. In evaluation it gets all tokens."""
    if model.training and packer.reads in (LABELLED, NEXT) and "labels" in inputs.get("packing", {}):
        inputs["labels"] = inputs["packing"]["labels"]
        if packer.reads == NEXT:
            inputs["shift_labels"] = inputs["labels"]  # shifted already: ForCausalLMLoss must not shift again
    return args, inputs


def _replace_inputs(packer: Packer, inside: list[Any], base: Any, args: Any, inputs: Batch) -> Any:
    """Give the base model the row of tokens instead of the batch.

    The modules inside it that need the packing keep it between passes, because gradient checkpointing recomputes them.
    """
    input_ids = args[0] if args else inputs.pop("input_ids")
    packing = inputs.get("packing")
    types, mask = inputs.pop("token_type_ids", None), inputs.pop("attention_mask", None)
    if packing is None:  # a batch of another collator
        packing = packer.pack(input_ids, torch.ones_like(input_ids) if mask is None else mask, types, None)
    for module in inside:
        module.packing = packing
    names = ("input_ids", "token_type_ids", "position_ids")
    return (), inputs | {name: packing[name] for name in names if name in packing} | {"packing": packing}


def _take_inputs(packer: Packer, module: Any, states: tuple[torch.Tensor, ...]) -> Any:
    """Keep the part of the attention's output and of the layer's input that the head reads, both [1, tokens, width]."""
    packing = module.packing
    return (
        tuple(_select_kept(packer, part, packing) for part in states)
        if _keeps_some(packer, module, packing)
        else states
    )


def _take_first(pooler: Any, states: tuple[torch.Tensor, ...]) -> Any:
    """Give BERT's pooler the first token of each feature, which it reads: [features, 1, width]."""
    packing = pooler.packing
    return (states[0][0].index_select(0, packing["bounds"][: packing["shape"][0]].long())[:, None], *states[1:])


def _take_output(packer: Packer, early: bool, base: Any, args: Any, inputs: Batch, output: Any) -> None:
    """Keep the part of the base model's output that the head reads."""
    packing, states = inputs["packing"], output.last_hidden_state
    if not _keeps_some(packer, base, packing):
        output.last_hidden_state = padded(states, packing)
    elif not early:
        output.last_hidden_state = _select_kept(packer, states, packing)


def _keeps_some(packer: Packer, module: nn.Module, packing: Batch) -> bool:
    """Return True if the head gets only some tokens. Heads that read tokens with labels do so in training alone."""
    return "kept" in packing and (packer.reads == FIRST or module.training)


def _select_kept(packer: Packer, states: torch.Tensor, packing: Batch) -> torch.Tensor:
    kept = states[0].index_select(0, packing["kept"])
    return kept[:, None] if packer.reads == FIRST else kept[None]


def padded(states: torch.Tensor, packing: Batch) -> torch.Tensor:
    """Return the states of a row [1, tokens, width] in the batch's shape [features, length, width], 0 in padding."""
    features, length = packing["shape"]
    whole = states.new_zeros(features * length + 1, states.shape[-1])
    return whole.index_copy(0, packing["places"], states[0])[:-1].view(features, length, -1)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packing: Batch,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within features; an attention function of transformers, without a mask.

    query: [1, heads, tokens, width]. key and value may have fewer heads, each shared by several of the query's.
    sliding_window: tokens at this distance or farther are masked. Returns [1, tokens, heads, width].
    """
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = (states.to(dtype) for states in (query, key, value))  # rotary embeddings return fp32
    causal = bool(getattr(module, "is_causal", False))
    attention = flash_attention.attend if query.is_cuda else reference
    bounds, longest = packing["bounds"], packing["longest"]
    return attention(query, key, value, bounds, longest, dropout, causal, scaling, sliding_window)[None], None


def reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    dropout: float,
    causal: bool,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Attend one feature after the other: [tokens, heads, width] -> the same. For CPUs, and as a reference."""
    attended = []
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        distance = torch.arange(end - start) - torch.arange(end - start)[:, None]
        seen = torch.ones_like(distance, dtype=torch.bool) if window is None else distance.abs() < window
        attended.append(
            functional.scaled_dot_product_attention(
                query[start:end].transpose(0, 1)[None],
                key[start:end].transpose(0, 1)[None],
                value[start:end].transpose(0, 1)[None],
                attn_mask=seen & (distance <= 0) if causal else seen,
                dropout_p=dropout,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )[0].transpose(0, 1)
        )
    return torch.cat(attended)

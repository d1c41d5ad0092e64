"""Everything that replaces or reaches into a library, one module per patch. tests/test_patches.py checks each.

Each module states the library with the version that it was checked with, the reason, the upstream issue, and the guard:
a list of what is known to work. Anything else runs the library's own code, with the same result and less speed.

Speedups, off with `train.speedups: false` (`speedups` applies them):

- `attention`: attention with dropout on a CPU
- `dropout`: dropout on a CPU
- `first_token`: the last layer of classifiers that read the first token
- `labelled_tokens`: the last layer, or the head, for the tokens that have labels. A teacher's head
  (tasks/masked_lm/modeling.py) computes these alone whatever the switch says
- `memory`: what glibc and oneDNN keep of the memory that tensors free
- `flash_attention`: padding-free attention on a GPU (`training/packing.py`)
- `attention_masks`: masks on a GPU; evaluation uses it whatever the switch says, as its outputs are the same

Needed for correct results or equal bytes, always on:

- `fsdp_tied_bias`: a bias with two names, which FSDP 2 refuses
- `products`: float32 products with the same bytes on every CPU (`numerics: portable`)

Elsewhere libraries are extended by their public means. training/packing.py registers an attention function and hooks,
training/fsdp.py sets the plugin's precision, training/trainer.py overrides public methods, and the models of
tasks/*/modeling.py may have a loss of their own. Private names are only read or called:

- training/trainer.py: `Trainer._load_best_model`
- training/packing.py: `_attn_implementation` of a configuration
- training/graphs.py, transfers.py: `torch._foreach_zero_`, `torch._foreach_norm`, `torch.utils._pytree`
- numerics.py: `torch.cpu._is_amx_tile_supported`, `torch.cpu._is_avx512_bf16_supported`
- model/base/probe.py: `_model_mapping` of an auto class
"""

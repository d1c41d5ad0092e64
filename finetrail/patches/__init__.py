"""Everything that replaces or reaches into a library, one module per patch. tests/test_patches.py checks each.

Each module states the library with the version that it was checked with, the reason, the upstream issue, and the guard:
a list of what is known to work. Anything else runs the library's own code, with the same result and less speed.

Speedups, off with `train.speedups: false` (`speedups` applies them):

- `attention`: attention with dropout on a CPU
- `dropout`: dropout on a CPU
- `first_token`: the last layer of classifiers that read the first token
- `labelled_tokens`: the last layer, or the head, for the tokens that have labels
- `memory`: what glibc and oneDNN keep of the memory that tensors free
- `flash_attention`: padding-free attention on a GPU (`training/packing.py`)
- `attention_masks`: masks on a GPU; evaluation uses it whatever the switch says, as its outputs are the same

Needed for correct results or equal bytes, always on:

- `fsdp_tied_bias`: a bias with two names, which FSDP 2 refuses
- `products`: float32 products with the same bytes on every CPU (`numerics: portable`)
"""

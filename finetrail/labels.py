"""The label of positions that no loss and no score counts; a module of its own, because rooms without tasks need it."""

# The default ignore_index of torch's cross-entropy.
IGNORE_INDEX = -100

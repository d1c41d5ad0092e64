"""The label of positions that no loss and no score counts; a separate module for packages that know no task."""

# The default ignore_index of torch's cross-entropy.
IGNORE_INDEX = -100

"""How many elements are reduced at a time: what the launcher counts, and what the ranks set."""

# DeepSpeed's own 500 million are 2 GB of buffers in 16 bits, and two thirds of a model of a billion then wait for the end of the backward pass.
ZERO_BUCKET = 2**26


# Layers that ZeRO-3 gathers before they run, with sharding.whole_layers=true: one is on its way while the other waits.
LAYERS_AHEAD = 2


def zero_bucket(reduced: int) -> int:
    """Elements of one bucket of ZeRO-1 and 2 where `reduced` elements learn: never more than there are."""
    return max(1, min(ZERO_BUCKET, reduced))

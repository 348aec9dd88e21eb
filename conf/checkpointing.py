"""What training.gradient_checkpointing says of the layers of a model, for launcher and trainers."""


def recomputed(value: bool | int, depth: int) -> int:
    """How many of the `depth` layers that the backward pass goes through are computed again in it: all, none, or a number of the lowest ones."""
    if isinstance(value, bool):
        return depth if value else 0
    return min(value, depth)

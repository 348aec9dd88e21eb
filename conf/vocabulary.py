"""How many rows the embedding of a run's model has."""

from conf.schema import Model


def vocabulary_rows(model: Model, loaded: int) -> int:
    """Of `loaded` rows: one more for every added token, and then up to a multiple."""
    return -(-(loaded + len(model.added_tokens)) // model.vocab_multiple) * model.vocab_multiple

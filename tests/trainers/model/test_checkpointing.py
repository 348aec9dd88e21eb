"""Which families can compute their activations again."""

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from launcher.rules.layer_pairs import WITHOUT_RECOMPUTATION


def test_the_families_without_recomputation_are_those_of_transformers() -> None:
    """The launcher cannot ask transformers, and permitted it for them: the ranks ended with an error."""
    found = {name for name, model in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if not getattr(transformers, model).supports_gradient_checkpointing}
    assert found == WITHOUT_RECOMPUTATION

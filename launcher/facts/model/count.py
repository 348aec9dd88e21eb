"""From the contents of a config.json to ModelFacts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from launcher.errors import ConfigError
from launcher.facts.model.facts import ModelFacts
from launcher.facts.model.families import FAMILIES, Family
from launcher.facts.model.fields import Fields


def model_facts(architecture: Mapping[str, Any], source: str) -> ModelFacts:
    """Exact counts of the model that transformers would build from `architecture`; `source` says in messages where that came from.

    Raises:
        ConfigError: for an architecture that cannot be counted, or a field that is missing or impossible.
    """
    name = architecture.get("model_type")
    if not isinstance(name, str):
        raise ConfigError(f"{source}: model_type is missing. Use the config.json that the model was published with.")
    if name not in FAMILIES:
        from launcher.facts.model.census import counted_facts  # it starts a process and reads versions, so it is imported only when it is needed

        return counted_facts(architecture, source)
    family = FAMILIES[name]
    fields = Fields(architecture, family.defaults, family.own_names, source)
    facts = widths(name, family, fields)
    return replace(facts, modules=family.modules(facts, fields))


def widths(name: str, family: Family, fields: Fields) -> ModelFacts:
    """Everything but the modules."""
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    kv_heads = fields.optional_size("num_key_value_heads") or heads
    if heads % kv_heads:
        raise ConfigError(f"{fields.source}: {heads} attention heads cannot share {kv_heads} key and value heads evenly. Fix num_key_value_heads.")
    sparse = family.expert_width is not None
    return ModelFacts(
        family=name,
        hidden=hidden,
        layers=fields.size("num_hidden_layers"),
        intermediate=mlp_width(family, fields, hidden),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim(fields, hidden, heads),
        vocab=fields.size("vocab_size"),
        max_positions=fields.size("max_position_embeddings"),
        tied=fields.flag("tie_word_embeddings"),
        gated_mlp=family.gated_mlp,
        experts=fields.size("num_experts") if sparse else 0,
        experts_per_token=fields.size("num_experts_per_tok") if sparse else 0,
        norms_per_layer=family.norms_per_layer,
        layer_norm=family.layer_norm,
        qk_norm=family.qk_norm,
        logit_softcap="final_logit_softcapping" in family.defaults and fields.lookup("final_logit_softcapping") is not None,
        sliding_window=sliding_window(family, fields),
        modules=(),
        residual_dropout="resid_pdrop" in family.defaults and fields.lookup("resid_pdrop") != 0,
        traits=family.traits,
    )


def mlp_width(family: Family, fields: Fields, hidden: int) -> int:
    if family.mlp_ratio is not None and fields.optional_size("intermediate_size") is None:
        return family.mlp_ratio * hidden
    return fields.size(family.expert_width or "intermediate_size")


def head_dim(fields: Fields, hidden: int, heads: int) -> int:
    if "qk_nope_head_dim" in fields.defaults:
        return fields.size("qk_nope_head_dim") + fields.size("qk_rope_head_dim")
    given = fields.optional_size("head_dim")
    if given is None and hidden % heads:
        raise ConfigError(
            f"{fields.source}: {fields.own('hidden_size')}={hidden} is not a multiple of {heads} attention heads. Fix one of them, or give head_dim."
        )
    return given or hidden // heads


def sliding_window(family: Family, fields: Fields) -> int | None:
    """Tokens that attention looks back at, where the architecture has a window and uses it."""
    if "sliding_window" not in family.defaults:
        return None
    if "use_sliding_window" in family.defaults and not fields.flag("use_sliding_window"):
        return None
    return fields.optional_size("sliding_window")

"""A name that the model does not have costs no place in a queue."""

import pytest

from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.gate.judge import judge_run

MODEL = ("model=qwen2.5_0.5b", "data=demo", "node=h100_80", "node.host_memory=400000000000", "model.init=random", "model.tokenizer=bytes")
PHI3 = """defaults: [local, _self_]
name: phi
path: null
init: random
tokenizer: bytes
architecture: {model_type: phi3, vocab_size: 32064, hidden_size: 512, intermediate_size: 1024, num_hidden_layers: 2, num_attention_heads: 8,
  max_position_embeddings: 4096, tie_word_embeddings: false, pad_token_id: 0}
"""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*MODEL, "regime=qlora", "regime.targets=[layers.30.self_attn.q_proj]"), "layers.30.self_attn.q_proj is not a linear layer of qwen2.5_0.5b"),
        ((*MODEL, "regime=lora", "regime.targets=[norm]"), "norm is not a linear layer"),
        ((*MODEL, "regime=freeze", "regime.layers=30"), "regime.layers=30, but qwen2.5_0.5b has 24 layers. Choose at most 24"),
        ((*MODEL, "regime=freeze", "regime.layers=-25"), "regime.layers=-25, but"),
        ((*MODEL, "regime=freeze", "regime.modules=[input_norm]"), "input_norm is not a module of qwen2.5_0.5b. Similar names are: input_layernorm"),
    ],
)
def test_what_the_model_does_not_have_is_refused_with_what_it_has(overrides, message):
    with pytest.raises(ConfigError, match=message):
        judge_run(compose(overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ("regime=lora", "regime.targets=[layers.23.self_attn.q_proj,lm_head,mlp.up_proj]"),
        ("regime=freeze", "regime.layers=-24"),
        ("regime=freeze", "regime.layers=0", "regime.modules=[input_layernorm,q_proj.bias,layers.3,embed_tokens]"),
        ("stage=rm", "regime=freeze", "regime.layers=1", "regime.modules=[score]"),
        ("regime=freeze", "regime.layers=0", "regime.new_blocks=2", "regime.modules=[layers.25]"),
    ],
)
def test_what_the_model_has_is_planned(overrides):
    assert judge_run(compose([*MODEL, *overrides])).estimate.allocated > 0


def test_the_linear_layers_are_those_of_the_models_own_family(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "phi.yaml").write_text(PHI3)

    with pytest.raises(ConfigError, match=r"v_proj is not a linear layer of phi\. Use one of down_proj, gate_up_proj, .*o_proj, qkv_proj, or"):
        judge_run(compose(["model=phi", *MODEL[1:], "regime=lora", "regime.targets=[v_proj]"], [tmp_path]))

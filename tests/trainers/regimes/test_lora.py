"""Which layers get an adapter, and how."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from conf.schema import Run
from launcher.composition.compose import compose
from trainers.regimes import prepare_model, with_adapter

WIDTHS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64}


def lora(*overrides: str, **architecture: object) -> Run:
    run = compose(["model=demo", "data=demo", "regime=lora", *overrides])
    return replace(run, model=replace(run.model, architecture={"model_type": "llama", **WIDTHS, **architecture}))


def config(run: Run, folder: Path) -> LoraConfig:
    prepared = prepare_model(run, AutoModelForCausalLM, folder / "base")
    assert prepared.peft_config is not None
    return prepared.peft_config


def leaves(run: Run, folder: Path) -> set[str]:
    return {name.rsplit(".", 1)[-1] for name in config(run, folder).target_modules}


def test_all_linear_is_every_linear_layer_but_the_head(tmp_path: Path) -> None:
    assert leaves(lora(), tmp_path) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_all_linear_of_gpt2_counts_its_transposed_layers(tmp_path: Path) -> None:
    run = lora()
    gpt2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 64}
    assert leaves(replace(run, model=replace(run.model, architecture=gpt2)), tmp_path) == {"c_attn", "c_proj", "c_fc"}


def test_the_head_gets_an_adapter_where_it_is_named(tmp_path: Path) -> None:
    run = lora("regime.targets=[q_proj,lm_head]")
    assert set(config(run, tmp_path).target_modules) == {"model.layers.0.self_attn.q_proj", "lm_head"}


def test_every_setting_reaches_peft(tmp_path: Path) -> None:
    made = config(lora("regime.rank=4", "regime.alpha=6", "regime.dropout=0.25", "regime.rslora=true", "regime.dora=true"), tmp_path)
    assert (made.r, made.lora_alpha, made.lora_dropout, made.use_rslora, made.use_dora) == (4, 6, 0.25, True, True)


def test_rslora_scales_by_the_root_of_the_rank(tmp_path: Path) -> None:
    scalings = []
    for rslora in ("false", "true"):
        run = lora("regime.rank=4", "regime.alpha=6", f"regime.rslora={rslora}")
        model = with_adapter(prepare_model(run, AutoModelForCausalLM, tmp_path / "base"), run)
        scalings.append(model.base_model.model.model.layers[0].mlp.up_proj.scaling["default"])
    assert scalings == [6 / 4, 6 / 2]


@pytest.mark.parametrize("target", ["q_prj", "embed_tokens", "norm", "proj"])
def test_a_target_that_is_no_linear_layer_is_refused(target: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"regime\.targets: {target} is not a linear layer of LlamaForCausalLM.*down_proj, gate_proj"):
        config(lora(f"regime.targets=[{target}]"), tmp_path)


def test_no_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"regime\.targets is empty"):
        config(lora("regime.targets=[]"), tmp_path)


def test_the_adapter_knows_the_base_that_the_run_left(tmp_path: Path) -> None:
    run = lora()
    model = with_adapter(prepare_model(run, AutoModelForCausalLM, tmp_path / "base"), run)
    assert model.peft_config["default"].base_model_name_or_path == str(tmp_path / "base")


def test_a_router_that_answers_several_tensors_gets_no_adapter(tmp_path: Path) -> None:
    """phimoe's is an nn.Linear by class, and PEFT's layer in its place would fail in the first step."""
    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4}
    run = compose(["model=demo", "data=demo", "regime=lora", "training.precision=fp32"])
    run = replace(run, model=replace(run.model, architecture={"model_type": "phimoe", "num_local_experts": 4, **sizes}))

    prepared = prepare_model(run, AutoModelForCausalLM, tmp_path / "base")

    assert prepared.peft_config is not None
    assert {name.rsplit(".", 1)[-1] for name in prepared.peft_config.target_modules} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    tokens = torch.arange(5, 17)[None]
    assert with_adapter(prepared, run)(input_ids=tokens, labels=tokens).loss.isfinite()

"""Mixtures are loaded with packed experts, from files and at random, and what cannot be loaded so is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from conf.schema import Run
from launcher.composition.compose import compose
from tests.trainers.small_models import OF_FAMILY
from trainers.model import mixtures
from trainers.model.build import load_model, on_disk
from trainers.model.expert_pieces import Piece, fill_experts, random_pieces
from trainers.model.experts import PackedExperts, expert_modules, stacked_parameters
from trainers.model.mixtures import has_experts
from trainers.model.packing import form_of
from trainers.regimes import prepare_model, with_adapter
from trainers.regimes.dequantised import with_plain_layers

WIDE = {"hidden_size": 64, "intermediate_size": 112, "moe_intermediate_size": 32}
ROUTED = {**OF_FAMILY["qwen2_moe"], **WIDE}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {**OF_FAMILY["mixtral"], **WIDE},
    "qwen2_moe": {**ROUTED, "shared_expert_intermediate_size": 32},
    "qwen3_moe": ROUTED | {"head_dim": 16},
    "olmoe": ROUTED | {"intermediate_size": 32},
    "deepseek_v3": {**OF_FAMILY["deepseek_v3"], **WIDE},
    "gpt_oss": {**OF_FAMILY["mixtral"], **WIDE, "head_dim": 16, "num_experts_per_tok": 2, "intermediate_size": 32},  # whole stacks in its files
}


def described(family: str, *overrides: str) -> Run:
    run = compose(["model=demo", "data=demo", "regime=qlora", "training.precision=fp32", *overrides])
    return replace(run, model=replace(run.model, architecture={"model_type": family, **FAMILIES[family]}))


def full_model(run: Run) -> PreTrainedModel:
    plain = compose(["model=demo", "data=demo", "regime=lora", "training.precision=fp32"])
    return load_model(replace(run, regime=plain.regime), AutoModelForCausalLM)


def loaded(run: Run, folder: Path) -> PreTrainedModel:
    return prepare_model(replace(run, model=on_disk(run.model, folder)), AutoModelForCausalLM, folder / "base").model


def packed_of(model: PreTrainedModel) -> dict[str, PackedExperts]:
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedExperts)}


@pytest.mark.parametrize("family", FAMILIES)
def test_files_are_packed_expert_by_expert_into_the_bits_of_their_weights(family: str, tmp_path: Path) -> None:
    run = described(family)
    full = full_model(run)
    full.save_pretrained(tmp_path, max_shard_size="60KB")  # gate and up of an expert may lie in two files

    found = packed_of(loaded(run, tmp_path))

    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert len(found) == 2 * len(expert_modules(full)) > 0
    for name, module in expert_modules(full).items():
        for key, whole in stacked_parameters(module).items():
            matrices = whole.detach().transpose(1, 2) if module.is_transposed else whole.detach()
            packed = found[f"{name}.{key}"]
            for expert in range(packed.experts):
                for part, matrix in enumerate(matrices[expert].chunk(packed.parts)):
                    meant = form_of(run.regime).pack(matrix.contiguous(), torch.float32)
                    at = expert * packed.parts + part
                    assert all(torch.equal(packed.stacked[kind][at], tensor) for kind, tensor in meant.items())


def written(run: Run, folder: Path) -> PreTrainedModel:
    """The random model of the run with its experts as they are drawn, as files; the packed one."""
    model = prepare_model(run, AutoModelForCausalLM, folder / "base").model
    full = full_model(run)
    drawn = {(piece.parameter, piece.expert, piece.part): piece.matrix for piece in random_pieces(model, run.training.seed, torch.device("cpu"))}
    for name, packed in packed_of(model).items():
        parameter = full.get_parameter(name)
        for expert in range(packed.experts):
            parameter.data[expert] = torch.cat([drawn[name, expert, part] for part in range(packed.parts)])
    full.save_pretrained(folder / "files")
    return model


def test_random_experts_are_those_that_their_files_would_give_and_no_base_is_written(tmp_path: Path) -> None:
    run = described("mixtral")

    model = written(run, tmp_path)
    ours, theirs = packed_of(model), packed_of(loaded(run, tmp_path / "files"))

    assert ours.keys() == theirs.keys()
    for name, packed in ours.items():
        assert all(torch.equal(tensor, theirs[name].stacked[kind]) for kind, tensor in packed.stacked.items())
        assert packed.unpacked(0, 4).std().item() == pytest.approx(0.02, rel=0.05)  # transformers' initializer_range
    assert not (tmp_path / "base").exists()


def test_a_random_mixture_is_the_same_each_time_and_another_under_another_seed(tmp_path: Path) -> None:
    one, again, other = (
        prepare_model(described("qwen3_moe", f"training.seed={seed}"), AutoModelForCausalLM, tmp_path / "base").model for seed in (1, 1, 2)
    )
    tokens = torch.arange(5, 17)[None]
    with torch.no_grad():
        logits = [model.eval()(input_ids=tokens).logits for model in (one, again, other)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2], atol=1e-3)
    assert logits[0].isfinite().all()


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_every_number_of_bits_loads(bits: int, tmp_path: Path) -> None:
    made = prepare_model(described("mixtral", f"regime.bits={bits}"), AutoModelForCausalLM, tmp_path / "base")
    assert {packed.form.bits for packed in packed_of(made.model).values()} == {bits}
    assert made.peft_config is not None
    assert {name.rsplit(".", 1)[-1] for name in made.peft_config.target_modules} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_linear_layers_have_their_two_bits_before_the_experts_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 16 bits they would take 2.3 GB more of Mixtral 8x7B where its last expert is packed."""
    plain: list[str] = []

    def filled(model: PreTrainedModel, *rest: Any) -> None:
        plain.extend(name for name, module in model.base_model.named_modules() if isinstance(module, torch.nn.Linear))
        fill_experts(model, *rest)

    monkeypatch.setattr(mixtures, "fill_experts", filled)
    made = prepare_model(described("mixtral", "regime.bits=2"), AutoModelForCausalLM, tmp_path / "base")
    assert plain == []
    assert not any(packed.missing for packed in packed_of(made.model).values())


def test_shared_experts_and_dense_layers_beside_packed_ones_get_no_adapter(tmp_path: Path) -> None:
    made = prepare_model(described("deepseek_v3"), AutoModelForCausalLM, tmp_path / "base")
    assert made.peft_config is not None
    assert not any("mlp" in name for name in made.peft_config.target_modules)
    with pytest.raises(ValueError, match=r"regime\.targets=\[up_proj\]: PEFT takes .*up_proj of deepseek_v3 for its routed experts"):
        prepare_model(described("deepseek_v3", "regime.targets=[up_proj]"), AutoModelForCausalLM, tmp_path / "base")


def break_by(change: Callable[[dict[str, torch.Tensor]], None], folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_file_without_an_expert_or_with_another_size_is_refused(tmp_path: Path) -> None:
    run = described("mixtral")
    full_model(run).save_pretrained(tmp_path)
    name = next(key for key in load_file(tmp_path / "model.safetensors") if "experts.2.w2" in key or "experts.2.down_proj" in key)
    break_by(lambda tensors: tensors.update({name: torch.zeros(3, 3)}), tmp_path)
    with pytest.raises(ValueError, match=r"model\.path=.* expert 2 of .*down_proj is \(3, 3\), but the model has \(64, 112\)"):
        loaded(run, tmp_path)
    break_by(lambda tensors: tensors.pop(name), tmp_path)
    with pytest.raises(ValueError, match=r"the files lack experts of 1 parameters; the first is expert 2 of .*down_proj"):
        loaded(run, tmp_path)


def test_an_odd_width_names_the_module_and_what_to_do(tmp_path: Path) -> None:
    run = described("mixtral")
    odd = {**run.model.architecture, "intermediate_size": 97, "hidden_size": 68, "num_attention_heads": 2, "num_key_value_heads": 1}
    with pytest.raises(ValueError, match=r"regime\.bits=4: .*experts: .* not a multiple of 64\. Set regime\.bits=8"):
        prepare_model(replace(run, model=replace(run.model, architecture=odd)), AutoModelForCausalLM, tmp_path / "base")


def test_random_experts_of_a_gpu_are_not_drawn_by_a_cpu(tmp_path: Path) -> None:
    run = described("mixtral", "node.gpus=1")
    with pytest.raises(ValueError, match="were drawn on a GPU"):
        prepare_model(run, AutoModelForCausalLM, tmp_path / "base")


def test_one_piece_at_a_time_is_asked_for(tmp_path: Path) -> None:
    """So that a source may make each as it is asked, and nothing holds two."""
    run = described("mixtral")
    model = prepare_model(run, AutoModelForCausalLM, tmp_path / "base").model
    alive: list[int] = []

    def pieces():
        import weakref

        living: set[int] = set()
        for number, piece in enumerate(random_pieces(model, 0, torch.device("cpu"))):
            matrix = piece.matrix.clone()
            living.add(number)
            weakref.finalize(matrix, living.discard, number)
            yield Piece(piece.parameter, piece.expert, piece.part, matrix)
            del matrix, piece
            alive.append(len(living))

    fill_experts(model, pieces(), torch.device("cpu"))
    assert max(alive) <= 1


def test_a_dense_model_has_no_experts() -> None:
    assert not has_experts(compose(["model=demo", "data=demo", "regime=qlora"]))
    assert has_experts(described("mixtral"))


@pytest.mark.parametrize("bits", [4, 2])
def test_a_base_that_is_kept_dequantised_has_the_experts_of_its_bits(bits: int, tmp_path: Path) -> None:
    run = described("mixtral", f"regime.bits={bits}")
    full_model(run).save_pretrained(tmp_path)
    packed = packed_of(loaded(run, tmp_path))

    kept = loaded(described("mixtral", f"regime.bits={bits}", "regime.dequantised=true"), tmp_path)

    assert packed_of(kept) == {}
    assert all(torch.equal(kept.get_parameter(name), each.unpacked(0, each.experts)) for name, each in packed.items())


def test_plain_peft_loads_the_adapter_on_the_plain_base(tmp_path: Path) -> None:
    run = described("mixtral")
    full_model(run).save_pretrained(tmp_path / "base")
    prepared = prepare_model(replace(run, model=on_disk(run.model, tmp_path / "base")), AutoModelForCausalLM, tmp_path / "none")
    adapted = with_adapter(prepared, run)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(tmp_path / "adapter")

    back = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter")

    ours, theirs = get_peft_model_state_dict(adapted), get_peft_model_state_dict(back)
    assert len(ours) == 2 * 2 * 4  # A and B in two layers, of four projections each
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


ADAPTED = "regime.targets=[all-linear,experts]"
TOKENS = torch.arange(5, 29).reshape(2, 12)


def adapted(family: str, folder: Path, *overrides: str) -> tuple[Run, PeftModel]:
    """A mixture from files whose experts' adapters are not zero."""
    run = described(family, ADAPTED, *overrides)
    full_model(run).save_pretrained(folder / "files")
    run = replace(run, model=on_disk(run.model, folder / "files"))
    model = with_adapter(prepare_model(run, AutoModelForCausalLM, folder / "base"), run)
    assert isinstance(model, PeftModel)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0.0, 0.05)
    return run, model


@pytest.mark.parametrize(("family", "rslora"), [("mixtral", "true"), ("qwen2_moe", "false"), ("gpt_oss", "false")])
def test_plain_peft_gives_the_logits_of_adapted_experts_and_merges_them(family: str, rslora: str, tmp_path: Path) -> None:
    run, model = adapted(family, tmp_path, f"regime.rslora={rslora}")
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    plain = with_plain_layers(prepare_model(run, AutoModelForCausalLM, tmp_path / "base").model, torch.float32)

    theirs = PeftModel.from_pretrained(plain, tmp_path / "adapter")

    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.rsplit("layers.0.", 1)[-1] for name in saved if "layers.0." in name and "experts" in name} == {
        f"mlp.experts.{base}lora_{side}.weight" for base in ("", "base_layer.") for side in "AB"
    }
    with torch.no_grad():
        ours = model.eval()(input_ids=TOKENS).logits
        assert torch.allclose(theirs(input_ids=TOKENS).logits, ours, atol=1e-5)
        with model.disable_adapter():
            assert not torch.allclose(model(input_ids=TOKENS).logits, ours, atol=1e-2)
        assert torch.allclose(theirs.merge_and_unload()(input_ids=TOKENS).logits, ours, atol=1e-5)


def test_gradients_of_adapted_experts_are_those_of_plain_peft(tmp_path: Path) -> None:
    run, model = adapted("qwen3_moe", tmp_path)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    plain = with_plain_layers(prepare_model(run, AutoModelForCausalLM, tmp_path / "base").model, torch.float32)
    theirs = PeftModel.from_pretrained(plain, tmp_path / "adapter", is_trainable=True)

    for each in (model.train(), theirs.train()):
        each(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss.backward()

    meant = dict(theirs.named_parameters())
    found = {name: parameter.grad for name, parameter in model.named_parameters() if "experts" in name and parameter.requires_grad}
    assert len(found) == 2 * 4  # layers; A and B of both matrices
    for name, gradient in found.items():
        assert gradient is not None
        assert gradient.abs().max() > 0
        other = meant[name].grad
        assert other is not None
        assert torch.allclose(gradient, other, atol=1e-6, rtol=1e-4), name

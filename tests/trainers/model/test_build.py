"""Loading: random weights, files, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from conf.schema import Run
from tests.described import composed
from trainers.model.build import load_model, save_random_base, weight_dtype, with_saved_base


def demo(*overrides: str) -> Run:
    return composed("model=demo", "data=demo", "regime=full", *overrides)


def from_folder(folder: Path, *overrides: str) -> Run:
    return composed("model=local", "data=demo", "regime=full", f"model.path={folder}", *overrides)


def loaded(run: Run) -> PreTrainedModel:
    return load_model(run, AutoModelForCausalLM)


def same_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_random_weights_depend_on_the_seed_and_on_nothing_before() -> None:
    first = loaded(demo())
    torch.rand(7)
    assert same_weights(first, loaded(demo()))
    assert not same_weights(first, loaded(demo("training.seed=43")))


def test_the_architecture_gives_every_width() -> None:
    model = loaded(demo("model.architecture.num_hidden_layers=3", "training.attention=eager"))
    # Per layer: q 128x128, k and v 128x64, o 128x128, three 128x352, two norms; one embedding of 264x128, tied; one norm.
    assert model.num_parameters() == 3 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352 + 2 * 128) + 264 * 128 + 128
    assert model.config._attn_implementation == "eager"


def test_saved_base_is_what_random_init_gives_and_is_written_once(tmp_path: Path) -> None:
    run = demo("regime=lora")
    on_disk = with_saved_base(run, AutoModelForCausalLM, tmp_path / "base")
    written = (tmp_path / "base" / "model.safetensors").stat().st_mtime_ns
    assert (on_disk.model.init, on_disk.model.path) == ("pretrained", str(tmp_path / "base"))
    assert same_weights(loaded(run), loaded(on_disk))
    with_saved_base(run, AutoModelForCausalLM, tmp_path / "base")
    assert (tmp_path / "base" / "model.safetensors").stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_files_are_loaded_in_the_dtype_of_the_run(tmp_path: Path) -> None:
    save_random_base(demo("training.precision=fp32"), AutoModelForCausalLM, tmp_path / "base")
    for precision, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16, "bf16_amp": torch.float32}.items():
        assert {p.dtype for p in loaded(from_folder(tmp_path / "base", f"training.precision={precision}")).parameters()} == {dtype}


def test_unknown_precision_is_named() -> None:
    with pytest.raises(ValueError, match=r"training\.precision=int3 .* bf16_amp, fp16_amp, bf16, fp32"):
        weight_dtype(demo("training.precision=int3"))


def test_random_weights_need_an_architecture() -> None:
    run = demo()
    with pytest.raises(ValueError, match=r"model\.architecture"):
        loaded(replace(run, model=replace(run.model, architecture={})))


def test_pretrained_weights_need_a_path() -> None:
    with pytest.raises(ValueError, match=r"model\.path"):
        loaded(demo("model.init=pretrained"))


def test_random_weights_are_not_quantised_in_memory() -> None:
    with pytest.raises(ValueError, match="save_random_base"):
        load_model(demo(), AutoModelForCausalLM, BitsAndBytesConfig(load_in_8bit=True))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"model.path={tmp_path}"):
        loaded(from_folder(tmp_path))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    model = loaded(demo())
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        loaded(from_folder(tmp_path))


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mystery", "auto_map": {"AutoConfig": "code.Config"}}))
    (tmp_path / "code.py").write_text("raise SystemExit('the code ran')")
    with pytest.raises(ValueError, match="never run"):
        loaded(from_folder(tmp_path))


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_rope_scaling_reaches_the_cutoff_and_is_saved(kind: str, tmp_path: Path) -> None:
    scaling = [f"model.rope_scaling={kind}", "data.cutoff=1300"]  # 512 positions: ceil(1300 / 512) = 3
    save_random_base(demo(*scaling), AutoModelForCausalLM, tmp_path / "base")
    for model in (loaded(from_folder(tmp_path / "base")), loaded(from_folder(tmp_path / "base", *scaling))):
        assert (model.config.rope_parameters["rope_type"], model.config.rope_parameters["factor"]) == (kind, 3.0)
        assert torch.isfinite(model(input_ids=torch.zeros(1, 600, dtype=torch.long)).logits).all()


def test_linear_rope_scaling_divides_the_frequencies() -> None:
    plain, scaled = loaded(demo()), loaded(demo("model.rope_scaling=linear", "data.cutoff=1024"))
    assert torch.allclose(scaled.model.rotary_emb.inv_freq * 2, plain.model.rotary_emb.inv_freq)


def test_positions_that_fit_are_not_scaled() -> None:
    assert loaded(demo("model.rope_scaling=yarn", "data.cutoff=512")).config.rope_parameters["rope_type"] == "default"


def test_rope_scaling_is_refused_where_there_is_none() -> None:
    run = demo("model.rope_scaling=yarn", "data.cutoff=2048")
    architecture = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 64}
    with pytest.raises(ValueError, match=r"model\.rope_scaling=yarn .* gpt2 has no rotary positions"):
        loaded(replace(run, model=replace(run.model, architecture=architecture)))

"""Fused kernels on a GPU: each against plain transformers and PEFT, whole models of every family, and steps that wait for nothing."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, TrainerCallback, set_seed

from conf.kernels import FUSED_FAMILIES, OFFSET_NORMS
from conf.run_dir import RunDir, save_run
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run
from trainers.data.rows.collator import padded_batch
from trainers.kernels.attention import whole_rows
from trainers.kernels.bases import Buffer
from trainers.kernels.fp8 import CAPABLE, E4M3, Fp8Base, quantise_columns, quantise_rows, scales_of
from trainers.kernels.layers import fuse_layers
from trainers.kernels.lora import fuse_adapters
from trainers.kernels.loss import SummedCrossEntropy, compute_loss_fused
from trainers.kernels.norms import FrozenNorm, spare_frozen_norms
from trainers.kernels.rows import joined_batch
from trainers.model.attention import implementation
from trainers.ranks.place import Place
from trainers.regimes.dequantised import with_plain_layers

pytestmark = pytest.mark.gpu(1)

SIZES = {
    "vocab_size": 1024,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
}
OF_FAMILY: dict[str, dict[str, Any]] = {
    "gemma3_text": {"head_dim": 64, "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen3": {"head_dim": 64},
    "mistral": {"sliding_window": 100},
}
LENGTHS = {"mixed": (256, 37, 131, 200), "full": (256, 256, 256)}
CUTOFF = 256


@pytest.fixture(scope="module", autouse=True)
def liger() -> None:
    pytest.importorskip("liger_kernel", reason="liger-kernel is for GPUs")


def model_of(family: str, dtype: torch.dtype, kernels: str) -> PreTrainedModel:
    """The same weights whatever their dtype: drawn on the CPU and rounded to bf16."""
    attention = "sdpa" if kernels == "plain" else "varlen"
    name = implementation(compose(["model=demo", "data=demo", f"training.kernels={kernels}", f"training.attention={attention}"]))
    set_seed(1)
    config = AutoConfig.for_model(family, **SIZES | OF_FAMILY.get(family, {}))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=name)
    return model.to("cuda", torch.bfloat16).to(dtype).train()


def adapted(model: PreTrainedModel, dtype: torch.dtype = torch.float32) -> PeftModel:
    """With the same adapter, rounded to bf16, whatever its dtype."""
    set_seed(2)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    wrapped = get_peft_model(model, config, autocast_adapter_dtype=False)
    draw = torch.Generator().manual_seed(2)
    for weight in wrapped.parameters():
        if weight.requires_grad:
            weight.data = (torch.randn(weight.shape, generator=draw) * 0.05).bfloat16().to("cuda", dtype)
    return wrapped


def batch(lengths: str, kernels: str) -> dict[str, Any]:
    set_seed(3)
    ids = [torch.randint(1, 1024, (length,)).tolist() for length in LENGTHS[lengths]]
    rows = [{"input_ids": row, "labels": [-100] * 10 + row[10:]} for row in ids]
    made = joined_batch(rows, CUTOFF) if kernels == "fused" else padded_batch(rows, padding=0, multiple=8)
    return {key: value.cuda() if isinstance(value, Tensor) else value for key, value in made.items()}


def passed(model: nn.Module, lengths: str, kernels: str, amp: bool) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    with torch.autocast("cuda", torch.bfloat16) if amp else nullcontext():
        loss = model(**batch(lengths, kernels), num_items_in_batch=sum(LENGTHS[lengths]) - 10 * len(LENGTHS[lengths])).loss
    loss.backward()
    return loss.item(), {name: weight.grad.float() for name, weight in model.named_parameters() if weight.grad is not None}


def distance(some: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    assert some.keys() == others.keys()
    return torch.stack([(some[name] - others[name]).norm() for name in some]).norm().item()


@pytest.fixture
def own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """liger replaces names in the modules of transformers: they are put back, so that the next plain model is plain."""
    import importlib

    for family in FUSED_FAMILIES:
        package = "gemma3" if family == "gemma3_text" else family
        module = importlib.import_module(f"transformers.models.{package}.modeling_{package}")
        for name in [name for name in vars(module) if name.endswith(("RMSNorm", "MLP", "ForCausalLM")) or name == "apply_rotary_pos_emb"]:
            monkeypatch.setattr(module, name, getattr(module, name))


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("regime", ["full amp", "full bf16", "lora amp", "lora bf16"])
@pytest.mark.parametrize("family", sorted(FUSED_FAMILIES))
def test_a_fused_model_is_as_near_to_fp32_as_the_plain_one(family: str, regime: str, lengths: str) -> None:
    """Both differ from fp32 by the rounding of 16 bits, the fused one by at most a quarter more; the losses by a rounding of bf16."""
    lora, amp = regime.startswith("lora"), regime.endswith("amp")
    dtype = torch.float32 if amp and not lora else torch.bfloat16

    def of(kernels: str) -> tuple[float, dict[str, Tensor]]:
        base = model_of(family, dtype, kernels)
        model: nn.Module = adapted(base, torch.float32 if amp else torch.bfloat16) if lora else base
        if kernels == "fused":
            assert fuse_layers(base)
            compute_loss_fused(base)
            assert not lora or fuse_adapters(model) == {}
            assert (spare_frozen_norms(base) > 0) == (lora and family not in OFFSET_NORMS)
        return passed(model, lengths, kernels, amp)

    exact_model = model_of(family, torch.float32, "plain")
    exact = passed(adapted(exact_model) if lora else exact_model, lengths, "plain", amp=False)
    plain, fused = of("plain"), of("fused")
    assert fused[0] == pytest.approx(plain[0], rel=2**-8)
    assert 0 < distance(fused[1], exact[1]) < 1.25 * distance(plain[1], exact[1])


def test_a_frozen_norm_is_one_kernel_that_autocast_leaves_alone() -> None:
    """Its output has the dtype of its input, and it keeps that input and one fp32 number a token."""
    norm = model_of("llama", torch.bfloat16, "plain").requires_grad_(False).model.norm
    states = torch.randn(7, 512, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    exact = norm.float()(states.detach().float())
    norm.bfloat16().forward = FrozenNorm(norm)
    kept: list[tuple[torch.dtype, int]] = []
    with (
        torch.autocast("cuda", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(lambda each: (kept.append((each.dtype, each.numel())), each)[1], lambda each: each),
    ):
        output = norm(states)
    assert output.dtype == torch.bfloat16
    assert len(kept) == 3
    assert set(kept) == {(torch.bfloat16, 7 * 512), (torch.bfloat16, 512), (torch.float32, 7)}
    assert (output.float() - exact).norm() < 2**-8 * exact.norm()


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_base_too(bits: int, tmp_path: Path) -> None:
    model_of("qwen2", torch.bfloat16, "plain").save_pretrained(tmp_path)
    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.bfloat16}
    quantization = BitsAndBytesConfig(load_in_8bit=True) if bits == 8 else BitsAndBytesConfig(load_in_4bit=True, **four)

    def of(fused: bool) -> tuple[float, dict[str, Tensor]]:
        base = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, quantization_config=quantization, device_map={"": 0})
        model = adapted(base.train())
        if fused:
            assert fuse_adapters(model) == {}
        return passed(model, "mixed", "plain", amp=True)

    plain, fused = of(False), of(True)
    assert fused[0] == pytest.approx(plain[0], rel=2**-8)
    norm = distance(plain[1], {name: torch.zeros_like(gradient) for name, gradient in plain[1].items()})
    assert distance(fused[1], plain[1]) < 0.02 * norm  # two roundings of bf16 in each of some products


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_a_base_that_is_dequantised_once_is_the_quantised_one(fused: bool, tmp_path: Path) -> None:
    """With fused kernels bit for bit: the same products of the same values."""
    model_of("qwen2", torch.bfloat16, "plain").save_pretrained(tmp_path)
    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.bfloat16}
    quantization = BitsAndBytesConfig(load_in_4bit=True, **four)

    def of(once: bool) -> tuple[float, dict[str, Tensor]]:
        base = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, quantization_config=quantization, device_map={"": 0})
        model = adapted((with_plain_layers(base, torch.bfloat16) if once else base).train())
        if fused:
            assert fuse_adapters(model) == {}
        return passed(model, "mixed", "plain", amp=True)

    packed, plain = of(False), of(True)
    if fused:
        assert plain[0] == packed[0]
        assert all(torch.equal(plain[1][name], packed[1][name]) for name in packed[1])
    assert plain[0] == pytest.approx(packed[0], rel=2**-8)
    norm = distance(packed[1], {name: torch.zeros_like(gradient) for name, gradient in packed[1].items()})
    assert distance(plain[1], packed[1]) < 0.02 * norm


@pytest.fixture
def ada() -> None:
    if torch.cuda.get_device_capability() < CAPABLE:
        pytest.skip("this GPU has no products in 8-bit floating point")


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize("strided", [False, True])
def test_the_gpu_rounds_to_8_bits_as_the_cpu_does(strided: bool) -> None:
    """But where a quotient lies between two numbers: the GPU multiplies by an inverse, so at most one in a hundred is the neighbour."""
    set_seed(1)
    values = torch.randn(300, 4096).bfloat16() * torch.rand(300, 1).bfloat16()
    values = values[:, 1000:2424] if strided else values
    values[7] = 0
    on_cpu, on_gpu = quantise_rows(values), quantise_rows(values.cuda()[:, :])
    torch.testing.assert_close(on_gpu[1].cpu(), on_cpu[1], rtol=1e-6, atol=0)
    columns = scales_of(values.abs().amax(0)).unsqueeze(1)
    turned = [
        quantise_columns(each, columns.to(each.device), torch.empty(each.t().shape, dtype=E4M3, device=each.device)) for each in matrices(values)
    ]
    for found, expected in ((on_gpu[0], on_cpu[0]), (turned[1], turned[0])):
        some, others = found.float().cpu(), expected.float()
        assert (some != others).float().mean() < 1e-2
        torch.testing.assert_close(some, others, rtol=2**-3, atol=2**-9)


def matrices(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.contiguous(), values.contiguous().cuda()


@pytest.mark.usefixtures("ada")
def test_what_is_no_number_stays_none_on_a_gpu() -> None:
    values = torch.ones(3, 4096, device="cuda", dtype=torch.bfloat16)
    values[1, 3], values[2, 5] = float("nan"), float("inf")
    rows, scales = quantise_rows(values)
    assert (rows.float() * scales).isfinite().all(1).tolist() == [True, False, False]


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize(("tokens", "outputs"), [(256, 1024), (1000, 512), (8192, 14336)])
def test_8_bit_products_are_those_of_the_rounded_numbers(tokens: int, outputs: int) -> None:
    """To a rounding of bf16, and the fast sums of the forward pass."""
    set_seed(1)
    layer = nn.Linear(4096, outputs, bias=True, device="cuda", dtype=torch.bfloat16)
    base, hidden, gradient = Fp8Base(layer, Buffer()), *(torch.randn(tokens, width, device="cuda").bfloat16() for width in (4096, outputs))
    inner, b = torch.randn(tokens, 16, device="cuda").bfloat16(), torch.randn(16, outputs, device="cuda").bfloat16()

    def rounded(values: Tensor) -> Tensor:
        rows, scales = quantise_rows(values)
        return (rows.float() * scales).double()

    with torch.no_grad():
        output, back = base.output(*quantise_rows(hidden), inner, b), base.back(gradient)
        exact = rounded(hidden) @ rounded(layer.weight).t() + inner.double() @ b.double() + layer.bias.double()
        assert (output.double() - exact).norm() < 2**-6 * exact.norm()
        exact = rounded(gradient) @ rounded(layer.weight.t().contiguous()).t()
        assert (back.double() - exact).norm() < 2**-6 * exact.norm()


@pytest.mark.usefixtures("own_modules", "ada")
@pytest.mark.parametrize("family", sorted(FUSED_FAMILIES))
def test_a_model_with_8_bit_products_is_near_the_one_with_16(family: str) -> None:
    """The loss to a thousandth, gradients by less than a quarter: as on a CPU (tests/trainers/kernels/test_fp8.py)."""
    found = {}
    for fp8 in (False, True):
        base = model_of(family, torch.bfloat16, "fused")
        model = adapted(base)
        assert fuse_layers(base)
        compute_loss_fused(base)
        assert fuse_adapters(model, fp8) == {}
        found[fp8] = passed(model, "mixed", "fused", amp=True)
    assert found[True][0] != found[False][0]
    assert found[True][0] == pytest.approx(found[False][0], rel=0.001)
    norm = distance(found[False][1], {name: torch.zeros_like(gradient) for name, gradient in found[False][1].items()})
    assert distance(found[True][1], found[False][1]) < norm / 4


@pytest.mark.parametrize("width", [64, 128])
def test_attention_of_whole_rows_is_torch_s(width: int) -> None:
    set_seed(1)
    query, key, value = (torch.randn(2, heads, 300, width, device="cuda", requires_grad=True) for heads in (8, 2, 2))
    given = torch.randn(2, 300, 8, width, device="cuda")
    functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2).backward(given)
    exact = [tensor.grad.clone() for tensor in (query, key, value)]
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in (query, key, value)]
    whole_rows(*half, width**-0.5, 0.0, None).backward(given.bfloat16())
    for found, expected in zip(half, exact, strict=True):
        assert (found.grad - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_is_torch_s(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp32 to 1e-5 of the largest gradient; bf16 logits and their gradients are rounded once each."""
    monkeypatch.setattr("trainers.kernels.loss.LOGITS", 50 * 5000)
    set_seed(1)
    hidden, head = torch.randn(333, 256, device="cuda"), torch.randn(5000, 256, device="cuda") / 16
    targets = torch.randint(0, 5000, (333,), device="cuda")
    targets[::7] = -100
    inputs = [tensor.to(dtype).requires_grad_() for tensor in (hidden, head)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = functional.cross_entropy(exact[0] @ exact[1].t(), targets, ignore_index=-100, reduction="sum")
    expected.backward()
    loss = SummedCrossEntropy.apply(*inputs, targets)
    loss.backward()
    share = 1e-5 if dtype == torch.float32 else 0.01
    assert loss.item() == pytest.approx(expected.item(), rel=share)
    for found, other in zip(inputs, exact, strict=True):
        assert (found.grad - other.grad).norm() < share * other.grad.norm()


class Strict(TrainerCallback):
    """From the third step to the last but one, whatever waits for the GPU raises."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            torch.cuda.set_sync_debug_mode("error")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == state.max_steps - 1:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize(
    "overrides",
    [
        ("regime=lora",),
        ("regime=qlora", "regime.bits=4"),
        ("regime=qlora", "regime.dequantised=true"),
        ("regime=lora", "training.fp8=true"),
        ("regime=full", "training.precision=bf16"),
        ("regime=lora", "data.packing=true"),
    ],
    ids=" ".join,
)
def test_a_run_waits_for_the_gpu_in_no_step_and_learns(overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.state import AcceleratorState, GradientState

    from trainers.run import train
    from trainers.stages import sft

    described = ("model=demo", "data=demo", "data.cutoff=128", "training.max_steps=24", "training.micro_batch=8", "data.validation_share=0")
    keys = ("training.kernels=fused", "training.loss=fused", "training.gradient_checkpointing=false", "optim.lr=0.005", "optim.warmup=0")
    without = ("checkpoint.interval=0", "node=auto", "cluster.ranks_per_node=1", "sharding=ddp")
    run = judge_run(compose([*described, *keys, *without, *overrides])).run
    run_dir = RunDir(tmp_path / "fused" / "once")
    run_dir.path.mkdir(parents=True)
    save_run(run, run_dir)
    AcceleratorState._reset_state()
    GradientState._reset_state()
    build = sft.build_trainer

    def watched(*given: Any) -> Any:
        trainer = build(*given)
        trainer.add_callback(Strict())
        return trainer

    monkeypatch.setattr(sft, "build_trainer", watched)
    try:
        assert train(run, run_dir, Place(0, 0, 1)) == (0, "finished")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    losses = [entry["loss"] for entry in map(json.loads, run_dir.progress.read_text().splitlines()) if "loss" in entry]
    assert len(losses) == 24
    assert losses[-1] < losses[0] - 0.2

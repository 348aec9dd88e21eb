"""Packed experts: what they compute, what autograd keeps of them, and what moves and casts do to them."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from launcher.memory.constants import HQQ_SEARCH
from tests.trainers.small_models import OF_FAMILY
from trainers.model import experts as experts_module
from trainers.model.experts import PackedExperts, PackedProduct, expert_modules, give_back_parameters, take_parameters
from trainers.model.packing import EIGHT_BITS, FOUR_BITS, FOUR_BITS_DOUBLE, TWO_BITS, Form

FORMS = {"8 bits": EIGHT_BITS, "4 bits": FOUR_BITS, "4 bits, packed scales": FOUR_BITS_DOUBLE, "2 bits": TWO_BITS}
# Half a step over the range of a row or block of normal numbers, as a share of their mean size: 127, 8 and 2 steps to each side at most.
ROUNDED = {"8 bits": 0.01, "4 bits": 0.12, "4 bits, packed scales": 0.12, "2 bits": 0.6}
WIDE = {"hidden_size": 64, "intermediate_size": 112, "moe_intermediate_size": 32}
ROUTED = {**OF_FAMILY["qwen2_moe"], **WIDE}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {**OF_FAMILY["mixtral"], **WIDE, "sliding_window": None},
    "qwen2_moe": {**ROUTED, "shared_expert_intermediate_size": 32},
    "qwen3_moe": ROUTED | {"head_dim": 16},
    "olmoe": ROUTED | {"intermediate_size": 32},
    "deepseek_v3": {**OF_FAMILY["deepseek_v3"], **WIDE},
    "gpt_oss": {**OF_FAMILY["mixtral"], **WIDE, "head_dim": 16, "num_experts_per_tok": 2, "intermediate_size": 32},  # transposed, with biases
}
TOKENS = torch.arange(5, 29).reshape(2, 12)


def model_of(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family], initializer_range=0.1)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("self_attn" in name)
    return model.train()


def pack(model: PreTrainedModel, form: Form) -> dict[str, Tensor]:
    """Pack the experts of `model` in place; what they were, [experts, outputs, inputs]."""
    before: dict[str, Tensor] = {}
    for name, module in expert_modules(model).items():
        own = {key: value.detach().clone() for key, value in module.named_parameters(recurse=False) if value.dim() == 3}
        take_parameters(module, form, torch.float32)
        for key, value in own.items():
            whole = value.transpose(1, 2) if module.is_transposed else value
            before[f"{name}.{key}"] = whole
            packed = module.get_submodule(key)
            for expert in range(packed.experts):
                for part, matrix in enumerate(whole[expert].chunk(packed.parts)):
                    packed.put(expert, part, matrix.contiguous())
    return before


def step(model: PreTrainedModel) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients."""
    model.zero_grad()
    loss = model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss
    loss.backward()
    return loss.item(), {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def unpack(model: PreTrainedModel) -> None:
    for module in expert_modules(model).values():
        give_back_parameters(module, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_the_unpacked_model(family: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts_module, "EXPERT_BUFFER", 2 * 4 * 64 * 64)  # two or three experts at a time, so that there are several groups
    model = model_of(family)
    before = pack(model, FORMS[form])
    packed_loss, packed = step(model)
    unpack(model)
    loss, gradients = step(model)

    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert packed.keys() == gradients.keys()
    assert len(packed) > 0
    assert all(torch.allclose(packed[name], gradients[name], rtol=1e-4, atol=1e-6) for name in packed)
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    for name, whole in before.items():
        given_back = model.get_parameter(name)
        meant = given_back.transpose(1, 2) if family == "gpt_oss" else given_back
        assert (meant - whole).abs().mean() < ROUNDED[form] * whole.abs().mean()


@contextmanager
def kept_by_autograd() -> Iterator[list[Tensor]]:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def test_autograd_keeps_no_weight_of_an_expert() -> None:
    model = model_of("mixtral")
    pack(model, FOUR_BITS_DOUBLE)
    matrices = {(64, 112), (112, 64), (64, 224), (224, 64)}  # of an expert, either way round

    def kept_matrices() -> set[tuple[int, ...]]:
        with kept_by_autograd() as kept:
            step(model)
        assert len(kept) > 10
        return {tuple(tensor.shape[-2:]) for tensor in kept if tensor.dim() > 1} & matrices

    assert kept_matrices() == set()
    unpack(model)
    assert kept_matrices() != set()  # transformers' own product keeps them


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_unpacked_matrix_is_gone_before_the_next_is_unpacked(checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the forward pass, of layers that are computed again, and of the backward pass."""
    monkeypatch.setattr(experts_module, "EXPERT_BUFFER", 1)
    model = model_of("mixtral")
    pack(model, FOUR_BITS_DOUBLE)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    made: list[weakref.ref[torch.UntypedStorage]] = []
    whole = PackedExperts.unpacked

    def watched(self: PackedExperts, first: int, last: int) -> Tensor:
        assert all(earlier() is None for earlier in made)
        matrices = whole(self, first, last)
        made.append(weakref.ref(matrices.untyped_storage()))
        return matrices

    monkeypatch.setattr(PackedExperts, "unpacked", watched)
    step(model)

    layers, projections, experts = 2, 2, 4
    assert len(made) >= layers * projections * experts * (3 if checkpointing else 2) - 2 * projections * layers  # an expert may have no rows
    assert all(each() is None for each in made)


def test_only_experts_with_rows_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts_module, "EXPERT_BUFFER", 1)
    packed = PackedExperts(4, 64, 64, 1, EIGHT_BITS, torch.float32)
    matrices = torch.randn(4, 64, 64)
    for expert, matrix in enumerate(matrices):
        packed.put(expert, 0, matrix)
    asked: list[tuple[int, int]] = []
    whole = packed.unpacked
    monkeypatch.setattr(packed, "unpacked", lambda first, last: (asked.append((first, last)), whole(first, last))[1])
    rows = torch.randn(5, 64, requires_grad=True)

    answer = PackedProduct.apply(rows, torch.tensor([0, 3, 3, 5]), (0, 0, 3, 3, 5), packed)
    answer.sum().backward()

    assert asked == [(1, 2), (3, 4)] * 2  # forwards and backwards
    assert torch.allclose(answer[3:], rows[3:] @ whole(3, 4)[0].T)


def test_a_cast_leaves_packed_experts_as_they_are_and_a_state_does_not_name_them() -> None:
    model = model_of("mixtral")
    pack(model, FOUR_BITS_DOUBLE)
    packed = next(part for part in model.modules() if isinstance(part, PackedExperts))
    before = {name: tensor.clone() for name, tensor in packed.stacked.items()}

    model.to(torch.bfloat16)  # as DeepSpeed casts a model

    assert all(torch.equal(tensor, before[name]) and tensor.dtype == before[name].dtype for name, tensor in packed.stacked.items())
    assert not any(".experts." in name for name in model.state_dict())
    assert not any(".experts." in name for name, _ in [*model.named_parameters(), *model.named_buffers()])


def test_a_matrix_without_whole_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"5 x 10 weights, which is not a multiple of 64"):
        PackedExperts(2, 5, 10, 1, FOUR_BITS, torch.float32)


def test_packed_bytes_are_those_of_the_bits() -> None:
    sizes = {}
    for name, form in FORMS.items():
        packed = PackedExperts(2, 256, 256, 2, form, torch.bfloat16)
        for expert in range(2):
            for part in range(2):
                packed.put(expert, part, torch.randn(128, 256))
        sizes[name] = sum(tensor.nbytes for tensor in packed.stacked.values())
    count, rows = 2 * 256 * 256, 2 * 256
    scales = count // 64
    assert sizes == {
        "8 bits": count + 4 * rows,
        "4 bits": count // 2 + 4 * scales,
        "4 bits, packed scales": count // 2 + scales + 4 * scales // 256 + 4 * 4,
        "2 bits": count // 4 + 4 * scales,
    }


def test_modules_without_the_common_interface_are_none_of_ours() -> None:
    assert expert_modules(nn.Sequential(nn.Linear(2, 2))) == {}


class Peak(TorchDispatchMode):
    """Bytes of all that is made inside and alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.live:
                self.live[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.bytes = max(self.bytes, sum(self.live.values()))
        return answer


def test_the_search_for_two_bits_needs_what_the_estimate_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU searches in fp16; a CPU does where fp32 is replaced by it."""
    import hqq.core.optimize as search

    monkeypatch.setattr(search, "float32", torch.float16)
    matrix = torch.randn(128, 512).to(torch.bfloat16)
    with Peak() as peak:
        TWO_BITS.pack(matrix, torch.bfloat16)
    assert peak.bytes == pytest.approx(HQQ_SEARCH * matrix.numel(), rel=0.005)


def test_packing_many_matrices_hands_no_cached_memory_back_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("emptied"))
    TWO_BITS.pack(torch.randn(64, 64), torch.float32)
    assert calls == []
    torch.cuda.empty_cache()
    assert calls == ["emptied"]

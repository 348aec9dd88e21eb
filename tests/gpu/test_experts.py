"""Packed experts on a GPU, whose kernels of unpacking and of grouped products are others than a CPU's."""

import pytest
import torch

from trainers.model import experts as experts_module
from trainers.model.experts import PackedExperts, PackedProduct
from trainers.model.packing import EIGHT_BITS, FOUR_BITS, FOUR_BITS_DOUBLE, TWO_BITS, Form

pytestmark = pytest.mark.gpu(1)

EXPERTS, OUTPUTS, INPUTS = 6, 512, 256
FORMS = {"8 bits": EIGHT_BITS, "4 bits": FOUR_BITS, "4 bits, packed scales": FOUR_BITS_DOUBLE, "2 bits": TWO_BITS}


def packed_on(device: str, form: Form, parts: int = 2) -> tuple[PackedExperts, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(EXPERTS, OUTPUTS, INPUTS, generator=generator).to(torch.bfloat16)
    packed = PackedExperts(EXPERTS, OUTPUTS, INPUTS, parts, form, torch.bfloat16)
    for expert, matrix in enumerate(matrices):
        for part, piece in enumerate(matrix.to(device).chunk(parts)):
            packed.put(expert, part, piece)
    return packed, matrices


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("together", [1, 4, EXPERTS])
def test_products_and_gradients_are_those_of_the_unpacked_matrices(form: str, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts_module, "EXPERT_BUFFER", together * OUTPUTS * INPUTS * 2)
    packed, _ = packed_on("cuda", FORMS[form])
    counts = torch.tensor([5, 0, 64, 1, 100, 30])
    ends = counts.cumsum(0).to(torch.int32)
    rows = torch.randn(int(counts.sum()), INPUTS, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    answers = PackedProduct.apply(rows, ends.cuda(), (0, *ends.tolist()), packed)
    weights = torch.randn_like(answers)
    (gradient,) = torch.autograd.grad((answers * weights).sum(), rows)

    whole = packed.unpacked(0, EXPERTS).float()
    owners = torch.repeat_interleave(torch.arange(EXPERTS), counts).cuda()
    meant = torch.einsum("roi,ri->ro", whole[owners], rows.detach().float())
    back = torch.einsum("roi,ro->ri", whole[owners], weights.float())
    assert torch.allclose(answers.float(), meant, rtol=2e-2, atol=2e-2 * meant.abs().max().item())
    assert torch.allclose(gradient.float(), back, rtol=2e-2, atol=2e-2 * back.abs().max().item())


@pytest.mark.parametrize("form", FORMS)
def test_a_gpu_packs_and_unpacks_what_a_cpu_does(form: str) -> None:
    (ours, matrices), (theirs, _) = packed_on("cuda", FORMS[form]), packed_on("cpu", FORMS[form])
    difference = (ours.unpacked(0, EXPERTS).cpu().float() - theirs.unpacked(0, EXPERTS).float()).abs()
    assert difference.mean() < 0.01 * matrices.float().abs().mean()  # values between two steps may fall on either, and HQQ searches in fp16 on a GPU


def test_unpacking_needs_no_more_than_the_estimate_says() -> None:
    """launcher/memory/step/experts.py, unpacked_bytes."""
    beside = {"8 bits": 0, "4 bits": 0, "4 bits, packed scales": 4 / 64, "2 bits": 1 / 4}
    for name, form in FORMS.items():
        packed, _ = packed_on("cuda", form)
        packed.unpacked(0, EXPERTS)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        whole = packed.unpacked(0, EXPERTS)
        needed = torch.cuda.max_memory_allocated() - before
        assert needed <= whole.nbytes * (1 + beside[name] / 2) * 1.02 + 2**16, name
        del whole

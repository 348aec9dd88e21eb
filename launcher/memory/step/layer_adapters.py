"""What adapters and quantised matrices of one layer need beside its activations."""

from conf.schema import Lora, Qlora
from launcher.facts.model import ModuleKind
from launcher.memory.job import Job
from launcher.memory.step.activations import CLOSING, fused_gate, last_part, layer_modules, mlp_width
from launcher.memory.terms import Term, Terms
from launcher.memory.weights.parameters import adapter_targets

# Bytes per element. Of an input of 8-bit layers: in fp16, its absolute values there, which of them are outliers, and in 8 bits; of their product:
# int32, fp16, and as asked for.
INT8_ROWS, INT8_PRODUCT = 2 + 2 + 1 + 1, 4 + 2 + 2
INT8_SOURCE = "bitsandbytes/backends/cuda/ops.py, int8_vectorwise_quant and int8_mm_dequant"
# Of a 2-bit matrix: unpacked, less its zeros, and times its scales.
HQQ_COPIES = 3 * 2
HQQ_SOURCE = "hqq/core/quantize.py, Quantizer.dequantize"


def adapted_in_mlp(job: Job) -> list[ModuleKind]:
    regime = job.run.regime
    return [module for module in adapter_targets(regime, job.facts) if ".mlp." in module.name] if isinstance(regime, Lora) else []


def adapts_closing(job: Job) -> bool:
    """Whether the MLP's last matrix has an adapter."""
    return any(last_part(module) in CLOSING for module in adapted_in_mlp(job))


def shares_inputs(job: Job) -> bool:
    """Adapters keep an input that others keep too, or that lives anyway, and no copy of it."""
    regime = job.run.regime
    return isinstance(regime, Lora) and not job.arithmetic.casts_adapted and not regime.dropout


def recomputes_adapters(job: Job) -> bool:
    return bool(job.run.training.gradient_checkpointing) and job.census.adapters > 0


def recomputes_gate(job: Job) -> bool:
    """A projection that makes gate and up in one, with an adapter."""
    adapted = any(last_part(module) not in CLOSING for module in adapted_in_mlp(job))
    return bool(job.run.training.gradient_checkpointing) and fused_gate(job.facts) and adapted


def float_copies(job: Job) -> int:
    """Bytes per inner value of PEFT's fp32 copy for the adapter of the MLP's last matrix, and of what dropout leaves of it."""
    if not (job.arithmetic.casts_adapted and adapts_closing(job)):
        return 0
    return 8 if isinstance(job.run.regime, Lora) and job.run.regime.dropout > 0 else 4


def closing_terms(job: Job) -> Terms:
    """What the MLP's last matrix, where it is quantised, makes of its input or of itself before it multiplies."""
    width = mlp_width(job.facts)
    if int8(job):
        return (Term("rows in 8 bits", (INT8_ROWS - dropped_copy(job)) * width * job.tokens, INT8_SOURCE),)
    if job.arithmetic.keeps_inputs and job.census.quantised:
        return (Term("one dequantised matrix", HQQ_COPIES * width * job.facts.hidden, HQQ_SOURCE),)
    return ()


def dropped_copy(job: Job) -> int:
    """Bytes per inner value that the adapter of the MLP's last matrix saves later: what its dropout leaves, and a mask."""
    return job.arithmetic.element + 1 if isinstance(job.run.regime, Lora) and job.run.regime.dropout > 0 and adapts_closing(job) else 0


def int8(job: Job) -> bool:
    return isinstance(job.run.regime, Qlora) and job.run.regime.bits == 8


def dequantised(job: Job, matrices: list[ModuleKind]) -> int:
    """bitsandbytes and HQQ multiply in 16 bits: one whole matrix at a time, of which HQQ makes copies."""
    if not job.census.quantised:
        return 0
    copies = HQQ_COPIES if job.arithmetic.keeps_inputs else 2
    return copies * max((module.inputs * module.outputs for module in matrices), default=0)


def matrices_of(job: Job, in_mlp: bool) -> list[ModuleKind]:
    return [module for module in layer_modules(job.facts) if module.kind == "linear" and (".mlp." in module.name) == in_mlp]


def dequantised_terms(job: Job, in_mlp: bool) -> Terms:
    size = dequantised(job, matrices_of(job, in_mlp))
    return (Term("one dequantised matrix", size, "bitsandbytes and HQQ multiply in 16 bits"),) if size else ()

"""A run resolved into what the formulas read: counts, bytes per element, the split over ranks, the worst batch."""

from dataclasses import dataclass
from functools import cached_property

from conf.kernels import FILLED
from conf.regimes import regime_row
from conf.schema import Lora, Qlora, Run
from conf.stages import stage_row
from launcher.facts.model import ModelFacts
from launcher.facts.model.trace import Trace, bytes_of
from launcher.memory.stages import Copies, answer_length, copies_of, facts_of_stage, judged
from launcher.memory.step.activations import Arithmetic, Batch, arithmetic_of, layer_bytes
from launcher.memory.step.fused_reach import fused_unknown
from launcher.memory.traces import trace_of
from launcher.memory.weights.dtypes import Storage, storage_of
from launcher.memory.weights.optimizer import is_paged
from launcher.memory.weights.parameters import (
    Census,
    adapted_packed,
    census_of,
    expert_adapter_elements,
    expert_targets,
    packed_experts,
    quantised_layers,
)
from launcher.memory.weights.split import Split, split_of

# Families whose activations were compared with traces of transformers' operations, or share those models' blocks.


@dataclass(frozen=True)
class Job:
    run: Run
    facts: ModelFacts
    census: Census
    storage: Storage
    arithmetic: Arithmetic
    split: Split
    batch: Batch
    gpu: bool
    copies: Copies
    trace: Trace | None  # of a family without a table
    untraced: str | None  # why such a family has none

    @property
    def tokens(self) -> int:
        return self.batch.tokens

    @property
    def head(self) -> int:
        return self.facts.vocab * self.facts.hidden

    @property
    def logit_tokens(self) -> int:
        """Tokens whose logits the loss reads."""
        return self.batch.samples * (answer_length(self.run) + 1) if answer_length(self.run) else self.tokens

    @property
    def whole(self) -> bool:
        """Every weight learns."""
        return self.census.trained_base == self.census.base

    @property
    def autocasts(self) -> bool:
        """Whether autocast copies what learns; the fused kernels' adapters have one copy for all passes (trainers/kernels/lora.py, Casts)."""
        return self.storage.autocast and not (self.arithmetic.fused and self.census.adapters > 0)

    def traced(self, moment: tuple[float, ...]) -> int:
        """Bytes of the whole batch, of a vector of the trace."""
        return bytes_of(moment, self.batch.samples, self.batch.length)

    @cached_property
    def learning_layer(self) -> int:
        """Bytes that a layer whose weights learn saves for its backward pass."""
        return self.layer_saved(learns=True)

    @cached_property
    def frozen_layer(self) -> int:
        return self.layer_saved(learns=False)

    @cached_property
    def merged_experts(self) -> int:
        """PEFT adds adapters of experts to their weights: the sum and both factors, in its dtype, wait for that layer's backward pass
        (peft/tuners/lora/layer.py, ParamWrapper and its _LoraFactorsProxy)."""
        regime = self.run.regime
        if not isinstance(regime, Lora):
            return 0
        experts = expert_targets(regime, self.facts)
        return self.storage.frozen * sum(module.parameters + expert_adapter_elements(regime, module) for module in experts)

    def layer_saved(self, learns: bool) -> int:
        """Of the whole batch; a boolean mask becomes a 16-bit bias inside of every attention call."""
        mask = self.arithmetic.element * self.batch.samples * self.batch.length**2
        bias = mask if self.batch.masked and self.run.training.attention != "eager" else 0
        return self.tokens * layer_bytes(self.run, self.facts, self.arithmetic, self.batch, learns) + bias


def worst_batch(run: Run, facts: ModelFacts) -> Batch:
    """Every sample as long as the cutoff; several samples of one batch are padded, and a packed one is block-diagonal: both need a mask.

    Under varlen none does: its kernels are given the bounds of samples, and keep what flash attention keeps.
    """
    samples, length = run.training.micro_batch * stage_row(run.stage.name).sequences, run.data.cutoff + answer_length(run)
    if run.training.kernels == "fused" and run.training.attention == "varlen" and run.node.gpus and samples > 1 and not run.data.packing:
        length = -(-(samples * length + -(samples * length) % FILLED) // samples)  # rows laid end to end are filled up
    window = facts.sliding_window is not None and length > facts.sliding_window
    return Batch(samples, length, masked=run.training.attention != "varlen" and (run.data.packing or samples > 1 or window))


def job_of(run: Run, facts: ModelFacts, batch: Batch) -> Job:
    storage, facts = storage_of(run), facts_of_stage(run, facts)
    gpu, arithmetic = run.node.gpus != 0, arithmetic_of(run, facts, storage)
    trace, untraced = trace_of(run, facts, storage, batch)
    return Job(run, facts, census_of(run, facts), storage, arithmetic, split_of(run), batch, gpu, copies_of(run), trace, untraced)


def counts_plain_kernels(job: Job) -> bool:
    return job.run.training.kernels == "fused" and not job.arithmetic.fused


def unfused(job: Job) -> str:
    """What training.kernels=fused does not reach, or its formulas do not."""
    if not job.gpu:
        return "node.gpus=0"
    return fused_unknown(job.run) or f"the family {job.facts.family}"


def because(job: Job) -> str:
    return f" ({job.untraced})" if job.untraced else " that was traced"


def doubts_of(job: Job) -> tuple[str, ...]:
    """What the formulas only come close to."""
    run, facts = job.run, job.facts
    rows = (
        (bool(adapted_packed(run.regime, facts)), "layers whose experts have adapters were traced without a GPU; no such run was measured on one"),
        (
            job.trace is not None and bool(facts.architecture),
            f"{facts.family} has no table: its layers were traced without a GPU; no run of such a family was measured on one",
        ),
        (not facts.traits.traced and job.trace is None, f"activations of {facts.family} are taken from the closest family{because(job)}"),
        (
            isinstance(run.regime, Qlora) and not set(facts.linears) <= set(quantised_layers(run.regime, facts)),
            f"linear layers of {facts.family} are of a class of their own, which {run.regime.name} does not quantise: they count in 16 bits",
        ),
        (
            isinstance(run.regime, Qlora) and facts.mixture and not packed_experts(run.regime, facts),
            f"experts of {facts.family} are of a class of their own, which {run.regime.name} does not quantise: they count in 16 bits",
        ),
        (judged(run), "stage.reward_model counts as large as the model that learns"),
        (
            regime_row(run.regime.name).learns == "an adapter" and len(run.model.added_tokens) > 0,
            "model.added_tokens beside an adapter: its memory was never measured",
        ),
        (
            counts_plain_kernels(job),
            f"training.kernels=fused with {unfused(job)}: what its kernels save is not predicted; the plain kernels are counted",
        ),
        (is_paged(run), f"optim={run.optim.name}: its states count as host memory; a step that pages is slow"),
    )
    return tuple(text for applies, text in rows if applies)

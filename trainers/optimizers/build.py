"""The optimizer of a run: transformers makes most by name; what it has no name for, or makes otherwise, is built here."""

from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from torch.optim import AdamW, Muon, Optimizer
from transformers import PreTrainedModel, Trainer

from conf.optimizers import optimizer_row
from conf.schema import Lora, Optim, Run, Zero
from trainers.optimizers.block_wise import badam
from trainers.optimizers.low_rank import apollo, galore, galore_8bit
from trainers.optimizers.matrices import hidden_matrices, other_weights
from trainers.regimes import hold_adapter


class MuonAdamW(Optimizer):
    """Two optimizers over one list of groups and one table of states: schedules, checkpoints and resuming see a single one.

    An Optimizer by inheritance, because torch's schedules refuse anything else.
    """

    def __init__(self, muon: Muon, adamw: AdamW) -> None:
        self.members: tuple[Optimizer, ...] = (muon, adamw)
        super().__init__([{**group, "member": number} for number, member in enumerate(self.members) for group in member.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Each member steps its groups; they are handed over every time because loading a state dict replaces them."""
        assert closure is None, "a Trainer computes the loss before the step"
        for number, member in enumerate(self.members):
            member.param_groups = [group for group in self.param_groups if group["member"] == number]
            member.state = self.state
            member.step()


def muon_and_adamw(model: PreTrainedModel, optim: Optim) -> MuonAdamW:
    """Over the weights that learn.

    The update of a matrix is scaled to the size of AdamW's (arXiv:2502.16982), so that optim.lr suits both; optim.beta1 is the momentum of both.

    Raises:
        ValueError: when no matrix learns.
    """
    hidden, rest = hidden_matrices(model), other_weights(model)
    if not hidden:
        raise ValueError("optim=muon: it orthogonalises only matrices between embedding and head, and none of them learns. Use optim=adamw.")
    muon = Muon(hidden, lr=optim.lr, weight_decay=optim.weight_decay, momentum=optim.beta1, adjust_lr_fn="match_rms_adamw")
    groups = [
        {"params": [weight for weight in rest if weight.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [weight for weight in rest if weight.ndim == 1], "weight_decay": 0.0},  # norms and biases
    ]
    adamw = AdamW(groups, lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps, fused=hidden[0].is_cuda)
    return MuonAdamW(muon, adamw)


Builder = Callable[[PreTrainedModel, Run], Optimizer]

# Those whose row in conf/optimizers.py has no name in transformers, under their own.
BUILDERS: dict[str, Builder] = {
    "muon": lambda model, run: muon_and_adamw(model, run.optim),
    "galore": galore,
    "galore_8bit": galore_8bit,
    "apollo": apollo,
    "badam": badam,
}


def choose_optimizer(trainer: Trainer, run: Run) -> None:
    """Have `trainer` build what transformers does not make."""
    if optimizer_row(run.optim.name).transformers is None:
        builder = builder_of(run.optim.name)
        trainer.optimizer_cls_and_kwargs = (lambda: builder, {"run": run})
    if isinstance(trainer.model, PeftModel):
        keep_adapter_dtype(trainer, trainer.model, run)
    if isinstance(run.regime, Lora) and run.regime.lora_plus_ratio is not None:
        speed_up_b_matrices(trainer, run.regime.lora_plus_ratio)
    if isinstance(run.sharding, Zero) and run.training.precision == "bf16":
        keep_bf16_masters(trainer)


def builder_of(name: str) -> Builder:
    if name not in BUILDERS:
        raise ValueError(
            f"optim={name} has no builder: its row in conf/optimizers.py gives no name of transformers, and BUILDERS in "
            "trainers/optimizers/build.py holds no function under its own. Add one of the two."
        )
    return BUILDERS[name]


def keep_bf16_masters(trainer: Trainer) -> None:
    """Have the engine of the trained model keep masters and states in bf16, where DeepSpeed's bf16 keeps fp32 ones.

    Not in the arguments: TRL gives a reference model an engine of the same configuration but of stage 0, and there
    `Bf16_master_weights_and_grads is only supported with ZeRO Stage 1, 2, or 3`. By now the reference has its engine.
    """
    trainer.accelerator.state.deepspeed_plugin.deepspeed_config["bf16"] |= {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}


def keep_adapter_dtype(trainer: Trainer, model: PeftModel, run: Run) -> None:
    """A Trainer that resumes reads the adapter with peft's load_adapter, which makes 16-bit ones fp32: they are put right before there are states."""
    create = trainer.create_optimizer

    def hold_and_create(wrapped: PreTrainedModel | None = None) -> Optimizer:
        if trainer.optimizer is None:
            hold_adapter(model, run)
        return create(wrapped)

    trainer.create_optimizer = hold_and_create


def speed_up_b_matrices(trainer: Trainer, ratio: float) -> None:
    """Whatever optimizer `trainer` makes, its B matrices get groups of their own at `ratio` times the learning rate (LoRA+, arXiv:2402.12354)."""
    create = trainer.create_optimizer

    def create_and_split(model: PreTrainedModel | None = None) -> Optimizer:
        made_before = trainer.optimizer is not None
        optimizer: Optimizer = create(model)
        if not made_before:
            named = (trainer.model if model is None else model).named_parameters()
            chosen = {id(weight) for name, weight in named if ".lora_B." in name}
            optimizer.param_groups = [part for group in optimizer.param_groups for part in split(group, chosen, ratio)]
        return optimizer

    trainer.create_optimizer = create_and_split


def split(group: dict[str, Any], chosen: set[int], ratio: float) -> list[dict[str, Any]]:
    """The group without the chosen weights, and the chosen ones at their own learning rate."""
    rest = [weight for weight in group["params"] if id(weight) not in chosen]
    faster = [weight for weight in group["params"] if id(weight) in chosen]
    parts = [{**group, "params": rest}, {**group, "params": faster, "lr": group["lr"] * ratio}]
    return [part for part in parts if part["params"]]

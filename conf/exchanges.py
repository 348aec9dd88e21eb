"""How much ranks exchange at once where a key of sharding leaves it open (null): what the launcher counts, and what the ranks do."""

from conf.regimes import regime_row
from conf.schema import Fsdp, Run, Zero


def whole_layers(run: Run) -> bool:
    """Whether ZeRO-3 gathers and reduces a layer at once. Of its own accord where that was measured on GPUs: where every weight learns and none is on
    the host (two H200s, a 1B llama: 90 % of one GPU's rate instead of 78 %, for 0.2 GiB more; benchmarks/results/speed/h200x2_scaling.jsonl)."""
    sharding = run.sharding
    if not isinstance(sharding, Zero) or sharding.stage != 3:
        return False
    if sharding.whole_layers is not None:
        return sharding.whole_layers
    on_host = sharding.offload_optimizer or sharding.offload_params
    return run.node.gpus > 0 and regime_row(run.regime.name).learns == "every weight" and not on_host


def reshards(sharding: Fsdp) -> bool:
    """Whether FSDP2 frees gathered weights between the forward and the backward pass; training.fit may choose that it does not."""
    return sharding.reshard_after_forward is not False

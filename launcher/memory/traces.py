"""Which trace describes the layers of a run whose family has no table, or whose packed experts have adapters, which no table counts."""

import json

from conf.constants import EXPERTS
from conf.schema import Badam, Freeze, Lora, Qlora, Run
from conf.traces import Adapter, TraceSettings
from launcher.errors import ConfigError
from launcher.facts.model import ModelFacts
from launcher.facts.model.trace import Trace, Untraceable
from launcher.memory.step.activations import Batch
from launcher.memory.weights.dtypes import Storage
from launcher.memory.weights.parameters import adapted_packed


def trace_of(run: Run, facts: ModelFacts, storage: Storage, batch: Batch) -> tuple[Trace | None, str | None]:
    """Neither where a table says it; else the trace, or why there is none.

    Raises:
        ConfigError: where torch or transformers fails, and where nothing else could say what adapters of experts need.
    """
    adapted = bool(adapted_packed(run.regime, facts))
    text = json.dumps(dict(run.model.architecture), sort_keys=True) if adapted else facts.architecture
    if not text:
        return None, None
    if isinstance(run.regime, Freeze):
        return None, f"regime={run.regime.name} is not traced"
    if isinstance(run.optim, Badam):
        return None, f"optim={run.optim.name} is not traced"
    from launcher.facts.model.tracing import layer_trace  # it starts a process and reads versions, so it is imported only when it is needed

    found = layer_trace(text, settings_of(run, storage, batch))
    if adapted and isinstance(found, Untraceable):
        raise ConfigError(
            f"regime.targets names {EXPERTS}, and the layers of {facts.family} cannot be traced with such adapters ({found.reason}), "
            "so that their memory is not known. Leave it out of regime.targets."
        )
    return (None, found.reason) if isinstance(found, Untraceable) else (found, None)


def settings_of(run: Run, storage: Storage, batch: Batch) -> TraceSettings:
    return TraceSettings(
        compute=storage.compute,
        autocast=storage.autocast,
        checkpointing=bool(run.training.gradient_checkpointing),
        attention=run.training.attention or "sdpa",
        masked=batch.masked,
        packed=run.data.packing,
        adapter=adapter_of(run),
    )


def adapter_of(run: Run) -> Adapter | None:
    regime = run.regime
    if not isinstance(regime, Lora):
        return None
    bits, double_quant = (regime.bits, regime.double_quant) if isinstance(regime, Qlora) else (16, False)
    return Adapter(regime.rank, regime.dropout, regime.dora, tuple(regime.targets), bits, double_quant)

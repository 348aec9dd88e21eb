"""As what a run's base lies in memory."""

from dataclasses import fields, replace

from conf.schema import Lora, Qlora, Run


def as_held(run: Run) -> Run:
    """A quantised base whose dequantised copy is kept lies in memory as that of LoRA does; other runs as they are."""
    regime = run.regime
    if not (isinstance(regime, Qlora) and regime.dequantised):
        return run
    shared = {field.name: vars(regime)[field.name] for field in fields(Lora)}
    return replace(run, regime=Lora(**shared | {"name": "lora"}))

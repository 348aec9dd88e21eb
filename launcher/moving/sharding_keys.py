"""What a file of DeepSpeed or the settings of FSDP mean as a choice of sharding."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.errors import ConfigError
from launcher.moving.arguments import deepspeed_form
from launcher.moving.draft import Draft

ZERO = re.compile(r"z(?:ero)?[-_]?(?P<stage>[0-3])", re.IGNORECASE)


def sharding(draft: Draft) -> None:
    if draft.on("deepspeed"):
        deepspeed(draft)
    elif draft.on("fsdp"):
        fsdp(draft)
    else:
        for name in ("deepspeed", "fsdp"):
            draft.idle(name, "off, as here")


def deepspeed(draft: Draft) -> None:
    try:
        form = deepspeed_form(draft.value("deepspeed"), draft.beside)
    except ConfigError as error:
        draft.refuse("deepspeed", str(error))
        return
    if isinstance(form, str):
        named = ZERO.search(Path(form).name)
        stage, offloads = (int(named["stage"]) if named else None), "offload" in form
    else:
        zero = table(form.get("zero_optimization"))
        stage = zero.get("stage", 0)
        devices = {str(table(zero.get(part)).get("device", "none")) for part in ("offload_optimizer", "offload_param")} - {"none", "None"}
        if devices - {"cpu"}:
            draft.refuse("deepspeed", f"offloading to {', '.join(sorted(devices - {'cpu'}))} is not possible here. Use sharding=zero3_offload")
            return
        offloads = bool(devices)
    choice = {0: "ddp", 1: "zero1", 2: "zero2", 3: "zero3"}.get(stage) if isinstance(stage, int) else None
    if choice is None or (offloads and stage not in (2, 3)):
        draft.refuse("deepspeed", f"{draft.value('deepspeed')} names no stage of ZeRO. Add sharding=zero2, or another, to the new file yourself")
        return
    draft.put("deepspeed", "sharding", f"{choice}_offload" if offloads else choice, "its buckets and other settings are regimen's own")


def table(value: Any) -> Mapping[str, Any]:
    """The value where it is a table; anything else names no stage."""
    return value if isinstance(value, Mapping) else {} if value is None else {"stage": value}


def fsdp_words(draft: Draft) -> set[str]:
    """As a list, or with spaces or commas."""
    return {word for text in draft.texts("fsdp") for word in text.split()}


def fsdp(draft: Draft) -> None:
    words = fsdp_words(draft)
    if "offload" in words:
        draft.refuse("fsdp", "offload is not possible with FSDP here. Use sharding=zero3_offload")
    draft.put("fsdp", "sharding", "fsdp2")
    if "shard_grad_op" in words:
        draft.put("fsdp", "sharding.reshard_after_forward", False)
    draft.idle("fsdp_config", "the settings of FSDP are regimen's own")

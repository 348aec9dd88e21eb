"""The verb export: where the weights go, in which form, and whether this machine has room for them."""

import os
import re
from pathlib import Path
from typing import Literal

from conf.mixtures import draws_experts
from conf.regimes import regime_row
from conf.request import Export
from conf.sizes import EXAMPLES, bytes_of
from launcher.errors import ConfigError, DiskError, GateRefused
from launcher.facts.host_memory import host_memory
from launcher.gate.judge import facts_of, free_disk
from launcher.launch.verb_process import run_verb, working_commit
from launcher.memory.weights.dtypes import storage_of
from launcher.verbs.weights import Found, find_trained, reads_hub, refuse_missing_base
from launcher.words import gib

Form = Literal["copy", "merged", "adapter"]
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
PROCESS = 2**30  # what torch, transformers and peft occupy themselves: 0.7 GiB measured on CPU builds


def export(
    name: str, output: Path | None, *, wanted: Form | None, to: Path | None, dtype: str | None, shard_size: str, push: str | None, public: bool
) -> int:
    found = find_trained(name, output)
    form = form_of(found, wanted)
    target = (to or found.run_dir.exports / default_name(found, form, dtype)).absolute()
    shard = parsed_size(shard_size)
    refuse_existing(target)
    refuse_repository(push)
    refuse_full_disk(target, exported_bytes(found, form, dtype))
    if form == "adapter":
        refuse_drawn_base(found)
    if form == "merged":
        refuse_missing_base(found)
        refuse_small_host(exported_bytes(found, form, dtype), shard, free_host_memory())
    request = Export(found.as_request, form, str(target), dtype, shard, push, not public, working_commit())
    # a base is quantised as in training: HQQ searches in another precision on a GPU than on a CPU
    on_gpu = regime_row(found.run.regime.name).quantised and form == "merged" and found.run.node.gpus
    needs_hub = push is not None or found.run.model.init == "pretrained"
    from_hub = form == "merged" and reads_hub(found)
    return run_verb("export", found.run, request, os.environ, needs_hub=needs_hub, hides_gpus=not on_gpu, from_hub=from_hub)


def refuse_drawn_base(found: Found) -> None:
    if draws_experts(found.run):
        raise ConfigError(
            f"The random base of {found.run_dir.path} was quantised as it was drawn and is in no files, so that its adapter alone could not be "
            "loaded. Use --merge."
        )


def form_of(found: Found, wanted: Form | None) -> Form:
    if found.is_adapter:
        return wanted or "merged"
    if wanted is not None:
        raise ConfigError(
            f"{found.weights} holds whole weights (regime={found.run.regime.name}). There is no adapter to merge or to export alone. "
            "Leave --merge and --adapter out."
        )
    return "copy"


def default_name(found: Found, form: Form, dtype: str | None) -> str:
    return "-".join([found.label, *([] if form == "copy" else [form]), *([] if dtype is None else [dtype])])


def parsed_size(text: str) -> int:
    size = bytes_of(text)
    if not size:
        raise ConfigError(f"--shard-size {text} is not a size. Write a number and a unit, such as {EXAMPLES}.")
    return size


def refuse_existing(target: Path) -> None:
    if target.exists():
        raise ConfigError(f"{target} exists already, and nothing is overwritten. Remove it, or name another folder with --to.")


def refuse_repository(push: str | None) -> None:
    if push is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", push) is None:
        raise ConfigError(f"--push {push} is not a hub repository. Use the form owner/name.")


def exported_bytes(found: Found, form: Form, dtype: str | None) -> int:
    if form == "merged":
        each = BYTES[dtype] if dtype is not None else storage_of(found.run).compute
        return facts_of(found.run).parameters * each
    on_disk = sum(path.stat().st_size for path in found.weights.glob("*.safetensors"))
    return on_disk * 2 if dtype == "fp32" else on_disk  # at most: what is fp32 already stays as large


def refuse_full_disk(target: Path, needed: int) -> None:
    free = free_disk(target)
    if needed > free:
        raise DiskError(f"{target} needs {gib(needed)}; {gib(free)} is free there. Free some space, or name a folder on another disk with --to.")


def refuse_small_host(weights: int, shard: int, available: int) -> None:
    """Merging holds the whole model, and once more the shard that is being written."""
    needed = weights + min(weights, shard) + PROCESS
    if needed > available:
        raise GateRefused(
            f"Merging needs {gib(needed)} of host memory (weights {gib(weights)}, and one shard while it is written); {gib(available)} is "
            "available. Export on a larger machine, use a smaller --dtype, or export the adapter alone (--adapter)."
        )


def free_host_memory() -> int:
    """Bytes: what the kernel could give without swapping, within the limit of this process's group."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    limit, _ = host_memory(Path("/"))
    return min(int(match[1]) * 1024, limit) if match else limit

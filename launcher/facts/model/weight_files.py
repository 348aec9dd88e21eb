"""Whether the safetensors files beside a config.json hold the tensors that it describes; only their headers are read."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import ConfigError
from launcher.facts.model.facts import ModelFacts, ModuleKind

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
LENGTH_BYTES = 8  # a header begins with its own length, little-endian (huggingface/safetensors, README: Format)
LONGEST_HEADER = 100_000_000  # bytes: the format's own limit
PICKLES = ("pytorch_model*.bin", "*.pth", "*.pt")
NUMBER = re.compile(r"\.(\d+)\.")
PARTS = {"weight": 0, "bias": 1}


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    file: str


def refuse_other_weights(folder: Path, architecture: Mapping[str, Any], facts: ModelFacts) -> None:
    """Compare what files of the folder say with the counts of its config.json; tensors under names that transformers translates are left to it.

    Raises:
        ConfigError: naming the first tensor that differs, is missing or is one too many; for files that are not there or broken.
    """
    files = weight_files(folder)
    if not files:
        raise ConfigError(no_safetensors(folder))
    if "quantization_config" in architecture:
        return  # packed weights have shapes of their own
    tensors = {tensor.name: tensor for file in files for tensor in tensors_of(file)}
    kinds = {module.name: module for module in facts.modules}
    known = [(tensor, kinds[kind], part, layer) for tensor in tensors.values() for kind, part, layer in [place_of(tensor.name)] if kind in kinds]
    for tensor, kind, part, layer in known:
        if layer is not None and layer >= facts.layers:
            raise disagree(folder, f"{tensor.file} holds {tensor.name}", f"num_hidden_layers is {facts.layers}")
        expected = shapes_of(kind, part, facts)
        if expected and tensor.shape not in expected:
            raise disagree(folder, f"{tensor.name} is {list(tensor.shape)} in {tensor.file}", f"{list(expected[0])} by config.json")
    refuse_missing(folder, facts, [(kind.name, layer) for _, kind, _, layer in known])


def refuse_missing(folder: Path, facts: ModelFacts, found: list[tuple[str, int | None]]) -> None:
    """A kind that some layers have in the files must be there for all of them."""
    for module in facts.modules:
        layers = {layer for name, layer in found if name == module.name}
        missing = sorted(set(module.layers) - {layer for layer in layers if layer is not None})
        if layers and missing:
            name = module.name.replace("*", str(missing[0]))
            raise disagree(folder, f"no file holds {name}", f"config.json describes {facts.layers} layers")


def disagree(folder: Path, files: str, config: str) -> ConfigError:
    return ConfigError(f"model.path={folder}: its config.json and its weights do not match: {files}, but {config}. Use both from the same model.")


def place_of(name: str) -> tuple[str, str, int | None]:
    """model.layers.3.mlp.up_proj.weight -> (model.layers.*.mlp.up_proj, weight, 3)."""
    module, _, part = name.rpartition(".")
    number = NUMBER.search(module)
    return (module, part, None) if number is None else (NUMBER.sub(".*.", module, count=1), part, int(number[1]))


def shapes_of(kind: ModuleKind, part: str, facts: ModelFacts) -> list[tuple[int, ...]]:
    """What a tensor of this module may look like; empty where that is not known. GPT-2's linear layers are transposed."""
    if kind.kind in ("linear", "head", "router") and part in PARTS:
        return [(kind.outputs, kind.inputs), (kind.inputs, kind.outputs)] if part == "weight" else [(kind.outputs,)]
    if kind.kind == "embedding" and part == "weight":
        return [(kind.parameters // facts.hidden, facts.hidden)]
    if kind.kind == "norm" and part in PARTS:
        return [(kind.parameters,), (kind.parameters // 2,)] if facts.layer_norm else [(kind.parameters,)]
    return []


def weight_files(folder: Path) -> list[Path]:
    """Those that transformers would load; none where the weights are in another format.

    Raises:
        ConfigError: for a file that the index names and the folder lacks.
    """
    if (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX, (folder / INDEX).read_bytes())["weight_map"].values()))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise ConfigError(f"model.path={folder}: {INDEX} names {absent[0]}, which is not there. Fetch the model again.")
        return [folder / name for name in names]
    return [folder / SINGLE] if (folder / SINGLE).is_file() else []


def no_safetensors(folder: Path) -> str:
    """What to say of a folder without weights that transformers would load here; pickles can run code and are never loaded."""
    others = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if not others:
        return f"model.path={folder} holds no weights ({SINGLE}, or {INDEX} and its files). Fetch the model again, or set model.init=random."
    load = f"AutoModelForCausalLM.from_pretrained({str(folder)!r}, use_safetensors=False, dtype='auto')"
    return (
        f"model.path={folder} holds its weights as {others[0]}. Such a file can run code and is not loaded. If you trust it, convert it once: "
        f'python -c "from transformers import AutoModelForCausalLM; {load}.save_pretrained({str(folder)!r})"'
    )


def tensors_of(path: Path) -> Iterator[Tensor]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        text = file.read(length) if length <= LONGEST_HEADER else b""
    for name, entry in read_json(path, text).items():
        if name != "__metadata__":
            yield Tensor(name, tuple(entry["shape"]), path.name)


def read_json(path: Path, text: bytes) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is broken: its header is not JSON ({error}). Fetch the model again.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is broken: its header is a JSON {type(values).__name__}, not an object. Fetch the model again.")
    return values

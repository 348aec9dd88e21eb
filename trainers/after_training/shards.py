"""Safetensors files of a model: copied shard by shard with a limit on their size, and checked by their headers."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # transformers' own names
METADATA = {"format": "pt"}  # transformers refuses files without it

Shape = tuple[int, ...]


def copy_weights(source: Path, target: Path, dtype: torch.dtype | None, shard_size: int) -> None:
    """Copy the weights of a folder into files of at most `shard_size` bytes (or one tensor), in another dtype if given; one shard is held."""
    placed: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards(tensors(weight_files(source), dtype), shard_size), start=1):
        name = f"part-{number}.safetensors"
        save_file(shard, target / name, metadata=METADATA)
        placed |= dict.fromkeys(shard, name)
        total += sum(map(size_of, shard.values()))
    name_shards(target, placed, total)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights.

    Raises:
        ValueError: where there are none.
    """
    index = folder / INDEX
    if index.is_file():
        return [folder / name for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))]
    if not (folder / SINGLE).is_file():
        raise ValueError(f"{folder} holds neither {SINGLE} nor {INDEX}, so its weights are not complete.")
    return [folder / SINGLE]


def tensors(files: list[Path], dtype: torch.dtype | None) -> Iterator[tuple[str, torch.Tensor]]:
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open gives no iterator
                tensor = file.get_tensor(name)
                yield name, tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def shards(named: Iterator[tuple[str, torch.Tensor]], limit: int) -> Iterator[dict[str, torch.Tensor]]:
    """In their order, as many tensors at a time as fit; one that is larger than the limit stands alone."""
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in named:
        if shard and size + size_of(tensor) > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += size_of(tensor)
    yield shard


def size_of(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def name_shards(folder: Path, placed: dict[str, str], total: int) -> None:
    """Give the files the names that transformers looks for, which hold the number of files."""
    parts = sorted(set(placed.values()), key=lambda name: int(name.removeprefix("part-").removesuffix(".safetensors")))
    if len(parts) == 1:
        (folder / parts[0]).rename(folder / SINGLE)
        return
    names = {part: f"model-{number:05d}-of-{len(parts):05d}.safetensors" for number, part in enumerate(parts, start=1)}
    for part, name in names.items():
        (folder / part).rename(folder / name)
    index = {"metadata": {"total_size": total}, "weight_map": {tensor: names[part] for tensor, part in placed.items()}}
    (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def header_shapes(folder: Path) -> dict[str, Shape]:
    """Every tensor of a folder and its shape, read from the headers alone; safetensors refuses a file that is shorter than its header says."""
    found: dict[str, Shape] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - as above
    return found

"""The experts of a mixture piece by piece, from the safetensors files of a model or a random generator, and how they are put into the model."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import Concatenate, MergeModulelist, WeightConverter, WeightRenaming, rename_source_key
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from trainers.model.experts import PackedExperts, expert_modules

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # transformers' own names
NUMBER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Piece:
    """The matrix [outputs / parts, inputs] of one expert, under the name of the parameter that it is a part of."""

    parameter: str
    expert: int
    part: int
    matrix: Tensor


@dataclass(frozen=True)
class Waiting:
    """What of a model waits for pieces: its packed experts by the names of the parameters that they stand for."""

    packed: dict[str, PackedExperts]
    transposed: dict[str, bool]


def waiting_of(model: nn.Module) -> Waiting:
    found = {f"{name}.{key}": (part, module) for name, module in expert_modules(model).items() for key, part in module.named_children()}
    chosen = {name: (part, module) for name, (part, module) in found.items() if isinstance(part, PackedExperts)}
    return Waiting({name: part for name, (part, _) in chosen.items()}, {name: bool(module.is_transposed) for name, (_, module) in chosen.items()})


def fill_experts(model: PreTrainedModel, pieces: Iterator[Piece], device: torch.device) -> None:
    """Pack every piece on `device`, one after the other.

    Raises:
        ValueError: naming what the pieces lack, or what is of another size.
    """
    packed = waiting_of(model).packed
    for piece in pieces:
        wanted = packed[piece.parameter]
        size = (wanted.outputs // wanted.parts, wanted.inputs)
        if tuple(piece.matrix.shape) != size:
            raise ValueError(f"expert {piece.expert} of {piece.parameter} is {tuple(piece.matrix.shape)}, but the model has {size}")
        wanted.put(piece.expert, piece.part, piece.matrix.to(device))
    torch.cuda.empty_cache()
    lacking = sorted(name for name, part in packed.items() if part.missing)
    if lacking:
        expert, _ = min(packed[lacking[0]].missing)
        raise ValueError(f"the files lack experts of {len(lacking)} parameters; the first is expert {expert} of {lacking[0]}")


def pieces_of_files(model: PreTrainedModel, files: list[Path]) -> Iterator[Piece]:
    """The experts in these files, read one by one.

    Raises:
        ValueError: where the architecture makes its experts of what is in the files otherwise than by stacking them.
    """
    waiting = waiting_of(model)
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    for path in files:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - safe_open gives no iterator
                name, pattern = rename_source_key(key, renamings, converters, model.base_model_prefix, waiting.packed)
                if name not in waiting.packed:
                    continue
                if pattern is None:
                    yield from pieces_of_stack(name, file.get_slice(key), waiting)
                else:
                    yield Piece(name, *place_of(key, pattern, converters, model), file.get_tensor(key))


def pieces_of_stack(name: str, stack: Any, waiting: Waiting) -> Iterator[Piece]:
    """Of a file that holds the parameter as the model does."""
    for expert in range(waiting.packed[name].experts):
        matrix = stack[expert]
        yield from pieces_of_matrix(name, expert, matrix.t() if waiting.transposed[name] else matrix, waiting.packed[name].parts)


def pieces_of_matrix(name: str, expert: int, matrix: Tensor, parts: int) -> Iterator[Piece]:
    for number, part in enumerate(matrix.chunk(parts)):
        yield Piece(name, expert, number, part)


def place_of(key: str, pattern: str, converters: list[WeightConverter], model: PreTrainedModel) -> tuple[int, int]:
    """Number of the expert and of the part that the file's tensor `key` is, which one of the sources of a converter matches."""
    converter = next(one for one in converters if pattern in one.source_patterns)
    plain = all(isinstance(step, MergeModulelist | Concatenate) for step in converter.operations)
    if not plain or "*" not in pattern:
        raise ValueError(f"{type(model).__name__} does not stack its experts as they are in the files, so that they cannot be packed one by one")
    return int(NUMBER.findall(key)[-1]), converter.source_patterns.index(pattern)


def random_pieces(model: PreTrainedModel, seed: int, device: torch.device) -> Iterator[Piece]:
    """The experts of a random model, drawn on `device` as transformers draws them: from a normal distribution of the config's initializer_range."""
    generator = torch.Generator(device).manual_seed(seed)
    deviation = float(model.config.get_text_config().initializer_range)
    for name, packed in waiting_of(model).packed.items():
        for expert in range(packed.experts):
            matrix = torch.empty(packed.outputs, packed.inputs, dtype=packed.dtype, device=device)
            yield from pieces_of_matrix(name, expert, matrix.normal_(0.0, deviation, generator=generator), packed.parts)


def weight_files(path: str, revision: str) -> list[Path]:
    """The safetensors files of a folder or a hub id, where transformers has put them."""
    single = cached_file(path, SINGLE, revision=revision, _raise_exceptions_for_missing_entries=False)
    if single is not None:
        return [Path(single)]
    files, _ = get_checkpoint_shard_files(path, cached_file(path, INDEX, revision=revision), revision=revision)
    return [Path(name) for name in files]

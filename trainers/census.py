"""`python -m trainers.census FOLDER`: counts the modules of FOLDER/config.json, built without storage, into FOLDER/census.json.

For architectures that the launcher has no table of. Its keys are the fields of the launcher's ModelFacts and ModuleKind; what no configuration
names alike (windows, soft caps) is looked up under transformers' most common name.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from conf import exit_codes
from conf.mixtures import STACKED

CONFIG, CENSUS = "config.json", "census.json"
LONGEST = 300  # characters of a cause
NUMBER = re.compile(r"\.(\d+)\.")
ROUTED = 3  # dimensions of a tensor that stacks experts


@dataclass(frozen=True)
class Kind:
    name: str
    kind: str
    inputs: int
    outputs: int
    parameters: int
    plain: bool  # no class of its own that is made of nn.Linear


def main() -> int:
    folder = Path(sys.argv[1])
    architecture = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    try:
        facts = census(architecture)
    except (KeyError, ValueError, TypeError, AttributeError, ImportError) as error:  # what transformers raises for values that do not fit
        print(next(iter(str(error).splitlines()), type(error).__name__)[:LONGEST], file=sys.stderr)
        return exit_codes.CONFIG
    (folder / CENSUS).write_text(json.dumps(facts), encoding="utf-8")
    return 0


def census(architecture: dict[str, Any]) -> dict[str, Any]:
    """Widths and kinds of modules of the causal language model that transformers builds from `architecture`.

    Raises:
        ValueError: for a model_type that this version of transformers does not know, or one without attention.
        KeyError, ValueError, TypeError, AttributeError: for values that transformers refuses.
    """
    if architecture["model_type"] not in CONFIG_MAPPING:
        raise ValueError(f"transformers {transformers.__version__} does not know it")
    config = AutoConfig.for_model(**architecture)
    if "num_attention_heads" not in common_names(config.get_text_config()):
        raise ValueError("it has no attention heads, and memory can be predicted only for decoders with attention")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    modules = kinds(model)
    return {**widths(config.get_text_config(), modules), "modules": modules}


def widths(config: PreTrainedConfig, modules: list[dict[str, Any]]) -> dict[str, Any]:
    values = common_names(config)
    hidden, heads = config.hidden_size, config.num_attention_heads
    inside = [module for module in modules if module["layers"]]
    norms = [module for module in inside if module["kind"] == "norm"]
    whole = [norm for norm in norms if "." not in norm["name"].split(".*.")[1]]  # of the residual stream: those of queries and keys lie deeper
    experts = values.get("num_experts") or values.get("num_local_experts") or values.get("n_routed_experts") or 0
    return {
        "family": config.model_type,
        "hidden": hidden,
        "layers": config.num_hidden_layers,
        "intermediate": mlp_width(values, inside, hidden),
        "heads": heads,
        "kv_heads": values.get("num_key_value_heads") or heads,
        "head_dim": values.get("head_dim") or hidden // heads,
        "vocab": config.vocab_size,
        "max_positions": values.get("max_position_embeddings") or 0,
        "tied": any(module["kind"] == "head" and not module["parameters"] for module in modules),
        "gated_mlp": sum(is_opening(module, hidden) for module in inside) > 1 or any(module["name"].endswith("gate_up_proj") for module in inside),
        "experts": experts if any(module["kind"] == "experts" for module in inside) else 0,
        "experts_per_token": values.get("num_experts_per_tok") or 0,
        "norms_per_layer": len(whole),
        "layer_norm": any(norm["parameters"] == 2 * hidden for norm in whole),
        "qk_norm": any("q_norm" in norm["name"] for norm in norms),
        "logit_softcap": values.get("final_logit_softcapping") is not None,
        "sliding_window": values.get("sliding_window") if values.get("use_sliding_window", True) else None,
        "residual_dropout": bool(values.get("resid_pdrop")),
    }


def common_names(config: PreTrainedConfig) -> dict[str, Any]:
    """The configuration's values, also under the names that its class maps to its own."""
    values = config.to_dict()
    return {**values, **{common: values[own] for common, own in config.attribute_map.items() if own in values}}


def is_opening(module: dict[str, Any], hidden: int) -> bool:
    """A matrix that leads into the MLP."""
    return bool(module["kind"] == "linear" and module["inputs"] == hidden and "mlp" in module["name"] and module["outputs"] != hidden)


def mlp_width(values: dict[str, Any], inside: list[dict[str, Any]], hidden: int) -> int:
    """Of one expert, or of the matrix that leads out of the MLP."""
    closing = [module["inputs"] for module in inside if module["kind"] == "linear" and "mlp" in module["name"] and module["outputs"] == hidden]
    return int(values.get("moe_intermediate_size") or max(closing, default=0) or values.get("intermediate_size") or 4 * hidden)


def kinds(model: PreTrainedModel) -> list[dict[str, Any]]:
    """Every kind of module that holds parameters itself, with the layers that hold one; what is tied counts once, where it is an embedding."""
    found: dict[Kind, list[int]] = {}
    for name, kind in direct(model):
        number = NUMBER.search(f"{name}.")
        layers = found.setdefault(Kind(NUMBER.sub(".*.", f"{name}.", count=1).rstrip("."), *kind), [])
        if number is not None:
            layers.append(int(number[1]))
    return [{**asdict(kind), "layers": layers} for kind, layers in found.items()]


def direct(model: PreTrainedModel) -> Iterator[tuple[str, tuple[str, int, int, int, bool]]]:
    """Name, kind, inputs, outputs, own parameters and whether it is plain, of every module that has any; stacked experts one by one."""
    head, counted = model.get_output_embeddings(), set[int]()
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        new = {key: parameter for key, parameter in own.items() if id(parameter) not in counted}
        if not own:
            continue
        counted |= {id(parameter) for parameter in own.values()}
        stacked = {key: parameter for key, parameter in new.items() if parameter.dim() == ROUTED}
        for key, parameter in stacked.items():
            outputs, inputs = reversed(parameter.shape[1:]) if vars(module).get("is_transposed") else parameter.shape[1:]
            packed = "is_transposed" in vars(module) and key in STACKED
            yield f"{name}.{key}", ("experts", inputs, outputs, parameter.numel(), packed)
        rest = sum(parameter.numel() for key, parameter in new.items() if key not in stacked)
        if rest or module is head:
            yield name, (*shape_of(module, own, module is head), rest, not isinstance(module, nn.Linear) or type(module) is nn.Linear)


def is_router(module: nn.Module) -> bool:
    """Of some families a router is an nn.Linear that answers more than one tensor (phimoe, llama4): nothing may take its place."""
    return isinstance(module, nn.Linear) and type(module).__name__.endswith("Router")


def shape_of(module: nn.Module, own: dict[str, nn.Parameter], is_head: bool) -> tuple[str, int, int]:
    if isinstance(module, nn.Linear) and not is_router(module):
        return ("head" if is_head else "linear"), module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return "linear", module.nx, module.nf
    if isinstance(module, nn.Embedding):
        return "embedding", 0, 0
    if all(parameter.dim() == 1 for parameter in own.values()):
        return "norm", 0, 0
    matrix = next(parameter for parameter in own.values() if parameter.dim() > 1)
    return ("router" if matrix.dim() == 2 else "other"), matrix.shape[-1], matrix.shape[0]


if __name__ == "__main__":
    raise SystemExit(main())

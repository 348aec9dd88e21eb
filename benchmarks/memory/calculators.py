"""Calculators of other fine-tuning projects, asked about a measured cell: which cells each can describe, and how its inputs are filled.

Each counts something outside of torch's allocator too (a CUDA context, a share for fragments); that part of its own sum is left out, since what was
measured is what torch allocated. Their code is not part of this project: `folder` holds it, as peers.py says.
"""

import importlib
import logging
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from conf.schema import Full, Lora, Qlora, Run
from launcher.facts.model import ModelFacts
from launcher.memory.weights.parameters import ALL_LINEAR

MIB = 2**20
GB = 10**9
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# The optimizers that a calculator has under a name of its own.
FITCHECK_OPTIMIZERS = {"adamw": "adamw", "adamw_8bit": "adam8bit", "sgd": "sgd"}
SOUP_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "lion_8bit": "lion_8bit",
}
UNSLOTH_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit", "sgd": "sgd"}


def load(path: Path) -> Any:
    """The module in a file outside of this project."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def eleuther(folder: Path) -> Callable[[Run, ModelFacts], float]:
    module = load(folder / "calc_transformer_mem.py")

    def predict(run: Run, facts: ModelFacts) -> float:
        training = run.training
        given = {
            **module.DEFAULTS,
            "zero_stage": 0,
            "checkpoint_activations": training.gradient_checkpointing,
            "batch_size_per_gpu": training.micro_batch,
            "sequence_length": run.data.cutoff,
            "vocab_size": facts.vocab,
            "hidden_size": facts.hidden,
            "num_attention_heads": facts.heads,
            "num_layers": facts.layers,
            "ffn_expansion_factor": facts.intermediate / facts.hidden,
            "num_mlp_linears": 3 if facts.gated_mlp else 2,
            "kv_size_ratio": facts.kv_heads / facts.heads,
            "num_experts": facts.experts,
        }
        return float(module.calc_mem(Namespace(**given)))

    return predict


def llm_analysis(folder: Path) -> Callable[[Run, ModelFacts], float]:
    sys.path.insert(0, str(folder / "site"))
    from llm_analysis.analysis import ActivationRecomputation, DSZeRO, LLMAnalysis
    from llm_analysis.config import ModelConfig, get_dtype_config_by_name, get_gpu_config_by_name

    logging.disable(logging.WARNING)

    def predict(run: Run, facts: ModelFacts) -> float:
        training = run.training
        model = ModelConfig(
            name="cell",
            num_layers=facts.layers,
            n_head=facts.heads,
            hidden_dim=facts.hidden,
            vocab_size=facts.vocab,
            max_seq_len=run.data.cutoff,
            num_key_value_heads=facts.kv_heads,
            ffn_embed_dim=facts.intermediate,
            model_type="llama",
        )
        amp = training.precision == "bf16_amp"
        found = LLMAnalysis(model, get_gpu_config_by_name("a100-sxm-80gb"), get_dtype_config_by_name("w16a16e16"), flops_efficiency=0.5).training(
            batch_size_per_gpu=training.micro_batch,
            gradient_accumulation_steps=1,
            global_batch_size=training.micro_batch,
            seq_len=run.data.cutoff,
            total_num_tokens=GB,
            activation_recomputation=ActivationRecomputation.FULL if training.gradient_checkpointing else ActivationRecomputation.NONE,
            ds_zero=DSZeRO.NONE,
            mlp_gated_linear_units=facts.gated_mlp,
            master_weights_dtype_bytes=4 if amp else 2,
            other_op_bytes=8 if amp else 4,
        )
        return float(found["(weight+op_state+grad+act)_memory_per_gpu"])

    return predict


def targets_of(run: Run) -> list[str]:
    """The layers that adapters are on; empty: none that these calculators name."""
    targets = run.regime.targets if isinstance(run.regime, Lora) else []
    return list(LINEARS) if list(targets) == [ALL_LINEAR] or targets == ALL_LINEAR else [name for name in LINEARS if name in targets]


def bits_of(run: Run) -> int:
    return run.regime.bits if isinstance(run.regime, Qlora) else 16


def in_bytes_of_amp(run: Run) -> bool:
    """Full training at 16 bytes a parameter, which these calculators assume for AdamW, or adapters."""
    return run.training.precision == "bf16_amp" if isinstance(run.regime, Full) else isinstance(run.regime, Lora) and not run.regime.dora


def fitcheck_describes(run: Run, facts: ModelFacts) -> bool:
    """Dense models with three matrices in the MLP and no biases: its own limit is 2 % of the parameters. Full training counts a bf16 copy and fp32
    masters: 16 bytes a parameter with AdamW, as AMP has."""
    dense = not facts.mixture and facts.gated_mlp and not facts.layer_norm
    return dense and in_bytes_of_amp(run) and run.training.loss == "plain" and run.optim.name in FITCHECK_OPTIMIZERS and bits_of(run) in (4, 8, 16)


def fitcheck(folder: Path) -> Callable[[Run, ModelFacts], float]:
    sys.path.insert(0, str(folder / "fitcheck"))
    package, parser = importlib.import_module("fitcheck"), importlib.import_module("fitcheck.config_parser")

    def predict(run: Run, facts: ModelFacts) -> float:
        fields = parser._parse_fields(run.model.architecture)
        shape = {name: getattr(fields, name) for name in fields.__dataclass_fields__}
        model = package.ModelConfig(name="cell", num_params=facts.parameters, **shape)
        training = package.TrainingConfig(
            precision="bf16",
            quantization={16: "none", 8: "int8", 4: "nf4"}[bits_of(run)],
            double_quant=isinstance(run.regime, Qlora) and run.regime.bits == 4 and run.regime.double_quant,
            optimizer=FITCHECK_OPTIMIZERS[run.optim.name],
            batch_size=run.training.micro_batch,
            seq_len=run.data.cutoff,
            lora_rank=run.regime.rank if isinstance(run.regime, Lora) else None,
            lora_targets=targets_of(run) or list(LINEARS),
            grad_checkpoint=bool(run.training.gradient_checkpointing),
            flash_attn=run.training.attention == "sdpa",
        )
        found = package.estimate(model, training, package.get_gpu("h200"))
        return float(MIB * (found.total_mib - found.overhead_mib))

    return predict


def soup_describes(run: Run, facts: ModelFacts) -> bool:
    """Full training is loaded in fp32, as AMP has it. Its allowed lengths begin at 64 tokens."""
    return in_bytes_of_amp(run) and run.training.loss == "plain" and run.optim.name in SOUP_OPTIMIZERS and bits_of(run) in (4, 8, 16)


def soup(folder: Path) -> Callable[[Run, ModelFacts], float]:
    module = load(folder / "hardware_fit.py")

    def predict(run: Run, facts: ModelFacts) -> float:
        given = module.HardwareFitInput(
            params_b=facts.parameters / GB,
            seq_len=run.data.cutoff,
            batch_size=run.training.micro_batch,
            optimizer=SOUP_OPTIMIZERS[run.optim.name],
            quant={16: "none", 8: "8bit", 4: "4bit"}[bits_of(run)],
            peft="full" if isinstance(run.regime, Full) else "qlora" if isinstance(run.regime, Qlora) else "lora",
            gradient_checkpointing=bool(run.training.gradient_checkpointing),
        )
        found = module.estimate_peak_vram_gb(given)
        return float(GB * (found.total_gb - found.overhead_gb))

    return predict


def unsloth_describes(run: Run, facts: ModelFacts) -> bool:
    """Its trainer never makes the logits of all tokens, and its sum has none: only cells whose loss makes none either. Full training in bf16."""
    adapters = isinstance(run.regime, Lora) and not run.regime.dora and bits_of(run) in (4, 16)
    trains = adapters or (isinstance(run.regime, Full) and run.training.precision == "bf16")
    return trains and run.training.loss != "plain" and run.optim.name in UNSLOTH_OPTIMIZERS


def unsloth(folder: Path) -> Callable[[Run, ModelFacts], float]:
    module = load(folder / "vram_estimation.py")

    def predict(run: Run, facts: ModelFacts) -> float:
        shape = module.extract_arch_config(Namespace(**(run.model.architecture or {})))
        training = module.TrainingVramConfig(
            training_method="full" if isinstance(run.regime, Full) else "qlora" if isinstance(run.regime, Qlora) else "lora",
            batch_size=run.training.micro_batch,
            max_seq_length=run.data.cutoff,
            lora_rank=run.regime.rank if isinstance(run.regime, Lora) else 16,
            target_modules=targets_of(run) or list(LINEARS),
            gradient_checkpointing="true" if run.training.gradient_checkpointing else "none",
            optimizer=UNSLOTH_OPTIMIZERS[run.optim.name],
            load_in_4bit=isinstance(run.regime, Qlora),
            attention_implementation=run.training.attention,
        )
        found = module.estimate_training_vram(shape, training)
        return float(found.total - found.cuda_overhead)

    return predict

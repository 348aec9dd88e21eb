"""What other estimators say of the measured one-GPU cells, beside what was measured.

    python -m benchmarks.memory.peers benchmarks/results/memory/h200_chosen.jsonl --peers FOLDER --out PEERS.json --page docs/peers.md

FOLDER holds what is not installed with this project: EleutherAI's calc_transformer_mem.py (github.com/EleutherAI/cookbook, 069ae2ef) with calc_mem
returning its total, and the llm_analysis 0.2.2 package. A peer is asked about every cell that its inputs can describe: the regime, the optimizer and
the loss of a cell that it has no word for are not counted against it, and it gets the true number of parameters where it takes one. All predict the
peak of one GPU; the measured one is that of torch's allocator. What a published table asks is a need of whole cards, not a prediction.
"""

import argparse
import importlib.util
import json
import logging
import statistics
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.memory.cells import overrides, write_samples
from benchmarks.memory.chosen import CHOSEN_ONE_GPU, write_shapes
from conf.schema import Full, Run
from launcher.composition.compose import compose
from launcher.facts.model import ModelFacts
from launcher.gate.hardware_table import published_need, row_of
from launcher.gate.judge import judge_run
from launcher.memory import estimate

GIB = 2**30
GB = 10**9


@dataclass(frozen=True)
class Case:
    run: Run
    facts: ModelFacts
    measured: int
    before: int  # what regimen predicted before the cell was measured

    @property
    def full_adamw(self) -> bool:
        """What the calculators of pre-training have inputs for."""
        return isinstance(self.run.regime, Full) and self.run.optim.name == "adamw" and self.run.training.loss == "plain"


@dataclass(frozen=True)
class Peer:
    name: str
    describes: Callable[[Case], bool]
    predict: Callable[[Case], float]
    leaves_out: str


def eleuther(folder: Path) -> Callable[[Case], float]:
    module = load(folder / "calc_transformer_mem.py")

    def predict(case: Case) -> float:
        facts, training = case.facts, case.run.training
        given = {
            **module.DEFAULTS,
            "zero_stage": 0,
            "checkpoint_activations": training.gradient_checkpointing,
            "batch_size_per_gpu": training.micro_batch,
            "sequence_length": case.run.data.cutoff,
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


def llm_analysis(folder: Path) -> Callable[[Case], float]:
    sys.path.insert(0, str(folder / "site"))
    from llm_analysis.analysis import ActivationRecomputation, DSZeRO, LLMAnalysis
    from llm_analysis.config import ModelConfig, get_dtype_config_by_name, get_gpu_config_by_name

    logging.disable(logging.WARNING)

    def predict(case: Case) -> float:
        facts, training = case.facts, case.run.training
        model = ModelConfig(
            name="cell",
            num_layers=facts.layers,
            n_head=facts.heads,
            hidden_dim=facts.hidden,
            vocab_size=facts.vocab,
            max_seq_len=case.run.data.cutoff,
            num_key_value_heads=facts.kv_heads,
            ffn_embed_dim=facts.intermediate,
            model_type="llama",
        )
        amp = training.precision == "bf16_amp"
        found = LLMAnalysis(model, get_gpu_config_by_name("a100-sxm-80gb"), get_dtype_config_by_name("w16a16e16"), flops_efficiency=0.5).training(
            batch_size_per_gpu=training.micro_batch,
            gradient_accumulation_steps=1,
            global_batch_size=training.micro_batch,
            seq_len=case.run.data.cutoff,
            total_num_tokens=GB,
            activation_recomputation=ActivationRecomputation.FULL if training.gradient_checkpointing else ActivationRecomputation.NONE,
            ds_zero=DSZeRO.NONE,
            mlp_gated_linear_units=facts.gated_mlp,
            master_weights_dtype_bytes=4 if amp else 2,
            other_op_bytes=8 if amp else 4,
        )
        return float(found["(weight+op_state+grad+act)_memory_per_gpu"])

    return predict


def accelerate_estimate(case: Case) -> float:
    from accelerate.commands.estimate import estimate_training_usage

    amp = case.run.training.precision == "bf16_amp"
    return float(max(estimate_training_usage(4 * case.facts.parameters, "float32" if amp else "bfloat16").values()))


def deepspeed_zero2(case: Case) -> float:
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as needs

    _, gpu = needs(case.facts.parameters, num_gpus_per_node=1, num_nodes=1, cpu_offload=False, additional_buffer_factor=1)
    return float(gpu)


def published_table(case: Case) -> float:
    return float(published_need(row_of(case.run), case.facts.parameters, case.facts.mixture))


def ours(case: Case) -> float:
    return float(estimate(case.run, case.facts).allocated)


def fake_tensors(case: Case) -> float:
    """torch's own MemTracker over two steps of the plain model on fake tensors, as its documentation shows it."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker
    from transformers import AutoConfig, AutoModelForCausalLM

    training, amp = case.run.training, case.run.training.precision == "bf16_amp"
    with FakeTensorMode(allow_non_fake_inputs=True):
        config = AutoConfig.for_model(**(case.run.model.architecture or {}))
        dtype = torch.float32 if amp else torch.bfloat16
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=training.attention).train()
        if training.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        tracker, tokens = MemTracker(), torch.zeros(training.micro_batch, case.run.data.cutoff, dtype=torch.long)
        tracker.track_external(model, optimizer)
        with tracker:
            for _ in range(2):
                tracker.reset_mod_stats()
                with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                    loss = model(input_ids=tokens, labels=tokens).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        return float(next(iter(tracker.get_tracker_snapshot("peak").values()))["Total"])


def traceable(case: Case) -> bool:
    """peft 0.21 cannot attach adapters to fake tensors (`Couldn't swap Linear.weight`), and quantised kernels take none."""
    return case.full_adamw and not case.facts.mixture


def in_whole_widths(case: Case) -> bool:
    """llm-analysis asserts that the MLP's width is a multiple of the model's."""
    return case.full_adamw and not case.facts.mixture and case.facts.intermediate % case.facts.hidden == 0


def load(path: Path) -> Namespace:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peers(folder: Path) -> list[Peer]:
    dense = "LoRA, quantisation, other optimizers, logits, the loss kernel"
    return [
        Peer("regimen, predicted before measuring", lambda case: True, lambda case: case.before, "nothing of these cells"),
        Peer("regimen, formulas mended since", lambda case: True, ours, "nothing of these cells"),
        Peer("EleutherAI calc_transformer_mem", lambda case: case.full_adamw, eleuther(folder), dense + ", bf16 states, tied embeddings"),
        Peer("llm-analysis 0.2.2", in_whole_widths, llm_analysis(folder), dense + ", MLPs that are no whole multiple of the width"),
        Peer("accelerate estimate-memory", lambda case: case.full_adamw, accelerate_estimate, "batch, length, activations, logits, and the above"),
        Peer("DeepSpeed estimate_zero2", lambda case: case.full_adamw, deepspeed_zero2, "activations, logits, bf16 states, adapters"),
        Peer("FakeTensor, torch's MemTracker", traceable, fake_tensors, "adapters, quantised layers; sees what CPU kernels allocate"),
        Peer("published hardware table", lambda case: True, published_table, "batch, length, optimizer, loss; a floor, not a prediction"),
    ]


def cases(path: Path, work: Path) -> dict[str, Case]:
    shapes, data = write_shapes(work / "shapes"), write_samples(work / "data")
    cells = {cell.name: cell for cell in CHOSEN_ONE_GPU}
    found = {}
    for record in map(json.loads, path.read_text().splitlines()):
        if "measured" not in record:
            continue
        judged = judge_run(compose([*overrides(cells[record["cell"]], data), "node=h200_141", "node.gpus=1"], [shapes]))
        measured = max(rank["allocated"] for rank in record["measured"])
        found[record["cell"]] = Case(judged.run, judged.facts, measured, record["predicted"]["allocated"])
    return found


def asked(peer: Peer, known: dict[str, Case]) -> dict[str, float]:
    """Signed relative error of every cell that the peer can describe."""
    return {name: peer.predict(case) / case.measured - 1 for name, case in known.items() if peer.describes(case)}


def row(peer: Peer, errors: dict[str, float], total: int) -> str:
    sizes = [abs(error) for error in errors.values()]
    low = sum(error < -0.02 for error in errors.values())
    figures = f"{statistics.median(sizes):.1%} | {max(sizes):.0%} | {low}"
    return f"| {peer.name} | {len(errors)} of {total} | {figures} | {peer.leaves_out} |"


def page(rows: list[str]) -> str:
    head = [
        "# Other estimators on the same cells",
        "",
        "Made by `benchmarks/memory/peers.py` from `benchmarks/results/memory/h200_chosen.jsonl`: one H200, peak of allocated memory. "
        "Each estimator is asked",
        "only about the cells that its inputs can describe. Too low by more than 2 % is what kills a job that was permitted.",
        "",
        "| estimator | cells it can describe | median error | worst | too low by more than 2 % | has no input for |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-peers"))
    arguments = parser.parse_args()
    known = cases(arguments.results, arguments.work)
    found = {peer.name: (peer, asked(peer, known)) for peer in peers(arguments.peers)}
    arguments.page.write_text(page([row(peer, errors, len(known)) for peer, errors in found.values()]), encoding="utf-8")
    versions = {name: version(name) for name in ("accelerate", "deepspeed")}
    errors = {name: {cell: round(error, 5) for cell, error in errors.items()} for name, (_, errors) in found.items()}
    arguments.out.write_text(json.dumps({"command": "python " + " ".join(sys.argv), "versions": versions, "errors": errors}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

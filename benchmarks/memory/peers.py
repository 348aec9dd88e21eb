"""What other estimators say of the measured one-GPU cells, beside what was measured.

    python -m benchmarks.memory.peers benchmarks/results/memory/h200_chosen.jsonl --peers FOLDER --out PEERS.json --page docs/reference/peers.md

FOLDER holds what is not installed with this project: EleutherAI's calc_transformer_mem.py (github.com/EleutherAI/cookbook, 069ae2ef) with calc_mem
returning its total; site/ with the llm_analysis 0.2.2 package; fitcheck/ with the unpacked fitcheck-llm 0.3.1; hardware_fit.py of soup-cli 0.77.0
(soup_cli/utils); vram_estimation.py of unsloth 2026.10.9 (studio/backend/utils/hardware). Of what it lacks, PEERS.json keeps the last
answers. A peer is asked about every cell that its inputs can describe: the regime, the optimizer and the loss of a cell that it has no word for are
not counted against it, and it gets the true number of parameters where it takes one. All predict the peak of one GPU; the measured one is that of
torch's allocator. What a published table asks is a need of whole cards, not a prediction.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.memory import calculators
from benchmarks.memory.cells import overrides, write_samples
from benchmarks.memory.chosen import CHOSEN_ONE_GPU, write_shapes
from conf.schema import Full, Run
from launcher.composition.compose import compose
from launcher.facts.model import ModelFacts
from launcher.gate.hardware_table import published_need, row_of
from launcher.gate.judge import judge_run
from launcher.memory.estimate import estimate

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
    build: Callable[[Path], Callable[[Case], float]]  # of the folder of what is not installed
    leaves_out: str
    needs: str = ""  # in that folder


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


def installed(predict: Callable[[Case], float]) -> Callable[[Path], Callable[[Case], float]]:
    return lambda folder: predict


def of_run(build: Callable[[Path], Callable[[Run, ModelFacts], float]]) -> Callable[[Path], Callable[[Case], float]]:
    def built(folder: Path) -> Callable[[Case], float]:
        predict = build(folder)
        return lambda case: predict(case.run, case.facts)

    return built


DENSE = "LoRA, quantisation, other optimizers, logits, the loss kernel"
PEERS = (
    Peer("regimen, predicted before measuring", lambda case: True, installed(lambda case: case.before), "nothing of these cells"),
    Peer("regimen, with today's formulas", lambda case: True, installed(ours), "nothing of these cells"),
    Peer(
        "EleutherAI calc_transformer_mem",
        lambda case: case.full_adamw,
        of_run(calculators.eleuther),
        DENSE + ", bf16 states, tied embeddings",
        needs="calc_transformer_mem.py",
    ),
    Peer(
        "llm-analysis 0.2.2",
        in_whole_widths,
        of_run(calculators.llm_analysis),
        DENSE + ", MLPs that are no whole multiple of the width",
        needs="site",
    ),
    Peer(
        "FitCheck 0.3.1 (fitcheck-llm)",
        lambda case: calculators.fitcheck_describes(case.run, case.facts),
        of_run(calculators.fitcheck),
        "mixtures, 2 bits, states in bf16, other optimizers, the loss kernel, DoRA, frozen layers",
        needs="fitcheck",
    ),
    Peer(
        "Soup 0.77.0 hardware_fit",
        lambda case: calculators.soup_describes(case.run, case.facts),
        of_run(calculators.soup),
        "the model's shape (only its parameters), the adapter's rank, logits, full training in bf16",
        needs="hardware_fit.py",
    ),
    Peer(
        "Unsloth 2026.10.9 vram_estimation",
        lambda case: calculators.unsloth_describes(case.run, case.facts),
        of_run(calculators.unsloth),
        "logits of all tokens, 8 and 2 bits, full training in AMP, other optimizers",
        needs="vram_estimation.py",
    ),
    Peer(
        "accelerate estimate-memory",
        lambda case: case.full_adamw,
        installed(accelerate_estimate),
        "batch, length, activations, logits, and the above",
    ),
    Peer("DeepSpeed estimate_zero2", lambda case: case.full_adamw, installed(deepspeed_zero2), "activations, logits, bf16 states, adapters"),
    Peer("FakeTensor, torch's MemTracker", traceable, installed(fake_tensors), "adapters, quantised layers; sees what CPU kernels allocate"),
    Peer("published hardware table", lambda case: True, installed(published_table), "batch, length, optimizer, loss; a floor, not a prediction"),
)
MAPPING = """
EleutherAI's calculator, llm-analysis and FakeTensor were asked about 56 of the cells, before the last twelve were measured.

How the newer three are asked (`benchmarks/memory/calculators.py`), each without what it adds outside of torch's allocator (its overhead, its CUDA
context), since that was not measured here:

- **FitCheck**: dense models; `precision=bf16`, `quantization` none, int8 or nf4 with the run's `double_quant`; AdamW, 8-bit AdamW or SGD; rank and
  layers of the adapter; `flash_attn` for `attention=sdpa`; the true number of parameters. Full training counts 16 bytes a parameter with AdamW, so
  it is asked about full training in AMP, and not in bf16. Cells with `training.loss=plain`.
- **Soup**: the number of parameters, length, batch, optimizer, bits, full or adapter (1 % of the parameters), checkpointing. Full training counts
  fp32 weights, so it is asked about AMP. Cells with `training.loss=plain`.
- **Unsloth**: the architecture, method, rank, layers, optimizer, batch, length, checkpointing `true` or `none`, attention. Its trainer never makes
  the logits of all tokens and its sum has none, so it is asked about cells with `training.loss` chunked or fused.
"""


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


def asked(peer: Peer, known: dict[str, Case], folder: Path) -> dict[str, float]:
    """Signed relative error of every cell that the peer can describe."""
    predict = peer.build(folder)
    return {name: predict(case) / case.measured - 1 for name, case in known.items() if peer.describes(case)}


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
    return "\n".join([*head, *rows, MAPPING])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of the peers that are asked; the others keep their last answers")
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-peers"))
    arguments = parser.parse_args()
    known = cases(arguments.results, arguments.work)
    before = json.loads(arguments.out.read_text())["errors"] if arguments.out.is_file() else {}
    errors: dict[str, dict[str, float]] = {}
    for peer in PEERS:
        asks = not arguments.only or any(part in peer.name for part in arguments.only)
        there = not peer.needs or (arguments.peers / peer.needs).exists()
        if asks and there:
            errors[peer.name] = {cell: round(error, 5) for cell, error in asked(peer, known, arguments.peers).items()}
        elif peer.name in before:
            print(f"{peer.name}: its last answers are kept.")
            errors[peer.name] = before[peer.name]
        else:
            parser.error(f"{arguments.out} has no answers of {peer.name}. Ask it too{'' if there else f': put {peer.needs} into {arguments.peers}'}.")
    arguments.page.write_text(page([row(peer, errors[peer.name], len(known)) for peer in PEERS]), encoding="utf-8")
    versions = {name: version(name) for name in ("accelerate", "deepspeed")}
    arguments.out.write_text(json.dumps({"command": "python " + " ".join(sys.argv), "versions": versions, "errors": errors}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

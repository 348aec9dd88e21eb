"""Writes random weights of the benchmarks' shapes once, so that no cell has to make its own.

    python -m benchmarks.running.bases --out FOLDER                                  every model of two grids, the caps, the stages and fit=auto
    python -m benchmarks.running.bases --out FOLDER --of third stages                those of the third grid and of the stages alone
    python -m benchmarks.running.bases --out FOLDER --part 2/2 --device cuda:1       every second one of them, beside another process for the others
    python -m benchmarks.running.bases --out FOLDER --tiny                           shapes for a rehearsal on a CPU

Weights are made in bf16 on the GPU where there is one, and written while the next shape is made. FOLDER/MODEL appears when it is whole; those that
are there are left alone.
"""

import argparse
import gc
import os
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, set_seed

from benchmarks.memory.caps import JOBS as CAPPED_JOBS
from benchmarks.memory.cells import tiny
from benchmarks.memory.chosen import write_shapes
from benchmarks.memory.drawn import DRAWN_AGAIN_ONE_GPU, DRAWN_ONE_GPU
from benchmarks.memory.drawn_on_two import DRAWN_AGAIN_TWO_GPUS, DRAWN_TWO_GPUS
from benchmarks.memory.from_files import FROM_FILES_ONE_GPU, FROM_FILES_TWO_GPUS
from benchmarks.memory.fused import FUSED_AGAIN_ONE_GPU, FUSED_LAYERS_ONE_GPU, FUSED_ONE_GPU
from benchmarks.memory.variants import FIXED_ONE_GPU, VARIANTS_ONE_GPU
from benchmarks.speed.fit import JOBS as FIT_JOBS
from benchmarks.stages.stage_cells import MODEL as STAGE_MODEL
from conf.schema import Run
from launcher.composition.compose import compose
from trainers.model.build import whole_random_model

WRITING = 2  # shapes that are made or written at once: what waits for the disk stays on the GPU


OF = {  # those of the largest cells first: who waits for them waits longest
    "from_files": [cell.model for cell in (*FROM_FILES_TWO_GPUS, *FROM_FILES_ONE_GPU)],
    "caps": [job.model for job in CAPPED_JOBS if job.from_files],
    "fit": [job.model for job in FIT_JOBS],
    "variants": [cell.model for cell in VARIANTS_ONE_GPU],
    "fixed": [cell.model for cell in FIXED_ONE_GPU],
    "drawn": [cell.model for cell in DRAWN_ONE_GPU],
    "drawn_again": [cell.model for cell in DRAWN_AGAIN_ONE_GPU],
    "fused": [cell.model for cell in FUSED_ONE_GPU],
    "fused_again": [cell.model for cell in FUSED_AGAIN_ONE_GPU],
    "fused_layers": [cell.model for cell in FUSED_LAYERS_ONE_GPU],
    "drawn_on_two": [cell.model for cell in DRAWN_TWO_GPUS],
    "drawn_on_two_again": [cell.model for cell in DRAWN_AGAIN_TWO_GPUS],
    "stages": [STAGE_MODEL],
}


def models(of: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(model for name in of for model in OF[name]))


def described(model: str, shapes: Path, small: bool) -> Run:
    given = [f"model={model}", "data=demo", "model.init=random", "model.path=null", "regime=full", "training.precision=bf16"]
    given.append("training.attention=eager")  # gemma2 has no other; it is not saved
    run = compose(given, [shapes])
    return compose([*given, *tiny(run.model.architecture or {})], [shapes]) if small else run


def made(run: Run, device: str) -> PreTrainedModel:
    set_seed(run.training.seed)
    with torch.device(device):
        return whole_random_model(run, AutoModelForCausalLM)


def written(model: PreTrainedModel, folder: Path, began: float) -> None:
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    model.save_pretrained(partial)
    size = sum(file.stat().st_size for file in partial.iterdir()) / 1e9
    os.replace(partial, folder)
    print(f"{folder.name}: {size:.1f} GB after {time.monotonic() - began:.0f} s", flush=True)


def write_all(names: Iterable[str], folder: Path, shapes: Path, device: str, small: bool) -> None:
    began, waiting = time.monotonic(), list[Future[None]]()
    with ThreadPoolExecutor(WRITING) as pool:
        for name in names:
            if (folder / name).is_dir():
                continue
            if len(waiting) >= WRITING:
                waiting.pop(0).result()
            waiting.append(pool.submit(written, made(described(name, shapes, small), device), folder / name, began))
            gc.collect()
            torch.cuda.empty_cache()  # cells begin beside this; without a GPU it does nothing
        for future in waiting:
            future.result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--of", nargs="*", choices=sorted(OF), default=list(OF), help="whose models")
    parser.add_argument("--only", nargs="*", default=[], help="models")
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-bases"))
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    shapes = write_shapes(arguments.work / "shapes")
    number, of = map(int, arguments.part.split("/"))
    write_all((arguments.only or models(arguments.of))[number - 1 :: of], arguments.out, shapes, arguments.device, arguments.tiny)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

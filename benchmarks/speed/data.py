"""Measures tokenising and packing against plain `datasets.map` with the same tokenizer, and the memory of both for n and 4n records.

    python -m benchmarks.speed.data [--records 250000] [--workers 2] [--out benchmarks/results/speed/data.json]

Short records of random words of Zipf's frequencies, and a byte-level BPE tokenizer of 8,192 tokens trained on them: nothing is downloaded. Each
measurement is a process of its own, theirs and ours in turn. Theirs: `load_dataset("json")` and one batched `map` to token ids (for conversations
`apply_chat_template` with assistant masks), nothing packed, its Arrow cache in a fresh folder. Ours: what `regimen data prepare` does, from reading
to packed rows on disk. Imports are not counted. The ratio is that of CPU seconds (user and system, of the process and its workers), which other work
on the machine changes little; that of wall times, which needs a quiet machine, is beside it, with the load. Memory is the highest sum of private
pages (RssAnon) over the process and its workers; pages that are mapped from files can be dropped at any time and are not counted.
Exits 1 when either ratio is below 0.9, or when its memory grows over 1.25 times.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.running.cpus import surroundings

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("datasets", "transformers", "tokenizers", "pyarrow", "numpy")
LEAST_RATIO, MOST_GROWTH = 0.9, 1.25
KINDS = {"text": "pt", "answers": "sft"}
WORDS, VOCABULARY, SAMPLE_WORDS = 20_000, 8_192, 24  # words of a record: half to one and a half of SAMPLE_WORDS
SAMPLING_SECONDS = 0.05
CUTOFF = 2048
# The template of both sides; the same text as trainers/data/rows/templates/chatml.jinja for these conversations.
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)


def main() -> int:
    arguments = parsed()
    if arguments.measure:
        print(json.dumps(MEASURED[arguments.measure](arguments)))
        return 0
    with tempfile.TemporaryDirectory(prefix="regimen-data-speed-") as folder:
        before = os.getloadavg()
        results = [compared(kind, arguments, Path(folder)) for kind in KINDS]
    arguments.out.write_text(json.dumps({**surroundings(PACKAGES, before), "records": arguments.records, "results": results}, indent=1) + "\n")
    for result in results:
        speed = f"ratio {result['ratio']:.2f} (wall {result['wall_ratio']:.2f})"
        print(f"{result['kind']}: {speed}, memory at 4n {result['memory_growth']:.2f} times that at n")
    return 0 if all(map(passes, results)) else 1


def passes(result: dict[str, Any]) -> bool:
    return bool(min(result["ratio"], result["wall_ratio"]) >= LEAST_RATIO and result["memory_growth"] <= MOST_GROWTH)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure tokenising and packing against datasets.map.")
    parser.add_argument("--records", type=int, default=250_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "speed/data.json")
    parser.add_argument("--measure", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def compared(kind: str, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Ours and theirs at n and at 4n records."""
    rows: dict[str, Any] = {"kind": kind}
    for times in (1, 4):
        folder = work / f"{kind}-{times}"
        make_records(folder, kind, arguments.records * times)
        rows[f"x{times}"] = {side: in_process(side, kind, folder, arguments) for side in ("theirs", "ours")}
    ours, theirs = rows["x4"]["ours"], rows["x4"]["theirs"]
    growth = ours["peak_bytes"] / rows["x1"]["ours"]["peak_bytes"]
    wall = theirs["wall_seconds"] / ours["wall_seconds"]
    return {**rows, "ratio": round(theirs["cpu_seconds"] / ours["cpu_seconds"], 3), "wall_ratio": round(wall, 3), "memory_growth": round(growth, 3)}


def in_process(side: str, kind: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    argv = [
        sys.executable,
        "-m",
        "benchmarks.speed.data",
        "--measure",
        side,
        "--kind",
        kind,
        "--folder",
        str(folder),
        "--workers",
        str(arguments.workers),
    ]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def make_records(folder: Path, kind: str, count: int) -> None:
    folder.mkdir()
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(WORDS)]
    weights = [1 / rank for rank in range(1, WORDS + 1)]
    with (folder / "records.jsonl").open("w") as file:
        for _ in range(count // 1000):
            drawn = draw.choices(words, weights, k=1000 * SAMPLE_WORDS * 2)
            for index in range(1000):
                own = drawn[index * SAMPLE_WORDS * 2 :][: draw.randint(SAMPLE_WORDS // 2, SAMPLE_WORDS * 3 // 2)]
                file.write(json.dumps(record(kind, own)) + "\n")
    save_tokenizer(folder)


def record(kind: str, words: list[str]) -> dict[str, str]:
    half = len(words) // 2
    return {"text": " ".join(words)} if kind == "text" else {"instruction": " ".join(words[:half]), "output": " ".join(words[half:])}


def save_tokenizer(folder: Path) -> None:
    from itertools import islice

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    with (folder / "records.jsonl").open() as file:
        lines = (" ".join(json.loads(line).values()) for line in islice(file, 20_000))
        backend.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=special[0], pad_token=special[0], chat_template=TEMPLATE)
    tokenizer.save_pretrained(folder / "tokenizer")


def measure_theirs(arguments: argparse.Namespace) -> dict[str, Any]:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.folder / "tokenizer")

    def texts(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"input_ids": tokenizer(batch["text"])["input_ids"]}

    def conversations(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        pairs = zip(batch["instruction"], batch["output"], strict=True)
        chats = [[{"role": "user", "content": asked}, {"role": "assistant", "content": answered}] for asked, answered in pairs]
        made = tokenizer.apply_chat_template(chats, return_dict=True, return_assistant_tokens_mask=True)
        return {"input_ids": made["input_ids"], "assistant_masks": made["assistant_masks"]}

    def work() -> int:
        cache = tempfile.mkdtemp(dir=arguments.folder)
        read = load_dataset("json", data_files=str(arguments.folder / "records.jsonl"), split="train", cache_dir=cache)
        processes = arguments.workers if arguments.workers > 1 else None
        tokenise = texts if arguments.kind == "text" else conversations
        return len(read.map(tokenise, batched=True, num_proc=processes, remove_columns=read.column_names))

    return timed(work)


def measure_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    from launcher.composition.compose import compose
    from trainers.data.prepare.build import build_into
    from trainers.model.tokenizer import load_tokenizer

    folder = arguments.folder
    run = compose(
        [
            *("model=demo", "data=files", f"stage={KINDS[arguments.kind]}", f"model.tokenizer={folder}/tokenizer", "data.sets=[records.jsonl]"),
            *(f"model.architecture.vocab_size={VOCABULARY}", f"data.folder={folder}", f"data.workers={arguments.workers}", f"data.cutoff={CUTOFF}"),
            "data.packing=true",
        ]
    )
    tokenizer = load_tokenizer(run)

    def work() -> int:
        target = Path(tempfile.mkdtemp(dir=folder))
        build_into(target, run, tokenizer)
        samples: int = json.loads((target / "report.json").read_text())["samples"]
        return samples

    return timed(work)


def timed(work: Callable[[], int]) -> dict[str, Any]:
    """Seconds of `work`, which returns how many records it handled, and the highest memory meanwhile."""
    done, peaks = threading.Event(), [0]

    def watch() -> None:
        while not done.wait(SAMPLING_SECONDS):
            peaks.append(private_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, cpu_before = time.perf_counter(), cpu_seconds()
    records = work()
    wall, cpu = time.perf_counter() - began, cpu_seconds() - cpu_before
    done.set()
    watcher.join()
    return {"records": records, "wall_seconds": round(wall, 2), "cpu_seconds": round(cpu, 2), "peak_bytes": max(peaks)}


def cpu_seconds() -> float:
    """Of this process and of its workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def private_bytes() -> int:
    """RssAnon of this process and its children."""
    own = os.getpid()
    listed = Path(f"/proc/{own}/task").glob("*/children")
    children = [int(child) for file in listed for child in file.read_text().split()]
    return sum(anonymous_bytes(pid) for pid in (own, *children))


def anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended meanwhile
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


MEASURED = {"ours": measure_ours, "theirs": measure_theirs}


if __name__ == "__main__":
    sys.exit(main())

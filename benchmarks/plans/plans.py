"""Writes what `regimen plan --json` prints for every job of jobs.jsonl before a change, and compares it after the change.

    python benchmarks/plans/plans.py write /tmp/before.jsonl                    all jobs: three minutes of a core
    python benchmarks/plans/plans.py write /tmp/after.jsonl                     in the changed checkout, on the same machine
    python benchmarks/plans/plans.py compare /tmp/before.jsonl /tmp/after.jsonl
    python benchmarks/plans/plans.py compare /tmp/before.jsonl /tmp/after.jsonl --renamed trainers.export=trainers.verbs.export --messages
    python benchmarks/plans/plans.py write /tmp/after.jsonl --without-pairs     one minute
    python benchmarks/plans/plans.py compare /tmp/before.jsonl /tmp/after.jsonl --part

Plans are made by the command line alone, so that no change of modules reaches this script: copy the folder into a checkout that lacks it. They are
made in a temporary folder, with a fixed environment and a disk of fixed size, and paths of this machine are written as names. Only host
memory and GPUs are those of this machine, for jobs with node=auto or node=cpu.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HF_HUB_OFFLINE": "1"}
DEMOS = ("alpaca_en_demo", "c4_demo", "dpo_en_demo", "kto_en_demo")
FILES = ("samples.json", "my.jsonl", "conversations.jsonl", "pairs.jsonl", "labelled.jsonl", "corpus.jsonl", *(f"{name}.jsonl" for name in DEMOS))
ROW, ROWS = {"instruction": "Go on.", "input": "", "output": "On."}, 4000  # a plan counts rows and reads no more of them
TINY = {"model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 2, "max_position_embeddings": 2048, "tie_word_embeddings": False}
SHOWN = 5  # keys of one job
Main = Callable[[list[str]], int]
Record = dict[str, object]
Jobs = dict[str, dict[str, object]]  # by overrides, the values of each by key


class Disk(NamedTuple):
    total: int
    used: int
    free: int


def write(out: Path, without: str) -> int:
    listed = map(json.loads, (HERE / "jobs.jsonl").read_text(encoding="utf-8").splitlines())
    jobs = [job["overrides"] for job in listed if job["from"] != without]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder).resolve())
        main = entry_point()
        places = {str(Path(folder).resolve()): "TEMP", str(CHECKOUT): "CHECKOUT", sys.prefix: "VENV"}
        for number, overrides in enumerate(jobs, 1):
            lines.append(neutral(json.dumps(planned(main, overrides), ensure_ascii=False), places))
            if number % 100 == 0 or number == len(jobs):
                print(f"{number} of {len(jobs)} jobs planned", file=sys.stderr, flush=True)
        os.chdir(CHECKOUT)
    out.write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")
    return 0


def prepare(folder: Path) -> None:
    """The files that the jobs name, in the folder where they are planned; the same environment and disk everywhere."""
    for data in (folder / "data", folder / "my_data"):
        data.mkdir()
        for name in FILES:
            rows = json.dumps([ROW] * ROWS) if name.endswith(".json") else f"{json.dumps(ROW)}\n" * ROWS
            (data / name).write_text(rows, encoding="utf-8")
        (data / "dataset_info.json").write_text(json.dumps({name: {"file_name": f"{name}.jsonl"} for name in DEMOS}), encoding="utf-8")
    run = folder / "outputs" / "RUN" / "TIME"
    (run / "model").mkdir(parents=True)
    (run / "model" / "config.json").write_text(json.dumps(TINY | {"architectures": ["LlamaForCausalLM"]}), encoding="utf-8")
    (run / "config.json").write_text(json.dumps(TINY | {"architectures": ["LlamaForSequenceClassification"]}), encoding="utf-8")
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(ENVIRONMENT, HOME=str(folder), TMPDIR=str(folder))
    shutil.disk_usage = lambda path: Disk(2**44, 0, 2**44)


def entry_point() -> Main:
    """The program regimen of this checkout, wherever its modules are."""
    sys.path.insert(0, str(CHECKOUT))
    module, name = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]["regimen"].split(":")
    found: Main = getattr(importlib.import_module(module), name)
    return found


def planned(main: Main, overrides: list[str]) -> Record:
    """The plan of one job, or how it was refused."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: object = main(["plan", "--config-dir", str(HERE / "groups"), *overrides, "--json"])
        except SystemExit as error:
            code = error.code
    record: Record = {"overrides": overrides, "exit_code": code}
    if out.getvalue():
        return record | {"plan": json.loads(out.getvalue())}
    from launcher.rules.pairs import RULES  # of this checkout, as entry_point

    return record | {"rules": [rule.name for rule in RULES if rule.why in err.getvalue()], "message": err.getvalue().strip()}


def neutral(text: str, places: dict[str, str]) -> str:
    """The text with the paths of this machine as names, the longest first."""
    for path in sorted(places, key=len, reverse=True):
        text = text.replace(path, places[path])
    return text


def compare(old: Jobs, new: Jobs) -> int:
    keys: Counter[str] = Counter()
    different = 0
    for job in sorted({*old, *new}):
        changes = [*differences(old[job], new[job])] if job in old and job in new else [("job", job in old, job in new)]
        if not changes:
            continue
        different += 1
        keys.update(key for key, _was, _is in changes)
        print(job)
        for key, was, now in changes[:SHOWN]:
            print(f"  {key}: {short(was)} -> {short(now)}")
        if len(changes) > SHOWN:
            print(f"  and {len(changes) - SHOWN} more keys")
    print(f"{len(old)} jobs before, {len(new)} after: {different} differ.")
    for key, count in keys.most_common(20):
        print(f"  {count:>5} x {key}")
    return 1 if different else 0


def read(path: Path, renamed: dict[str, str], messages: bool) -> Jobs:
    jobs = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(with_new_names(line, renamed))
        if not messages:
            record.pop("message", None)
        jobs[" ".join(record.pop("overrides"))] = dict(flattened(record))
    return jobs


def with_new_names(text: str, renamed: dict[str, str]) -> str:
    for old, new in renamed.items():
        text = re.sub(rf"(?<![\w.]){re.escape(old)}(?!\w)", new, text)
    return text


def flattened(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flattened(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from flattened(inner, f"{key}[{number}]")
    else:
        yield key, value


def differences(old: dict[str, object], new: dict[str, object]) -> Iterator[tuple[str, object, object]]:
    absent = "(absent)"
    for key in dict.fromkeys([*old, *new]):
        was, now = old.get(key, absent), new.get(key, absent)
        if was != now or type(was) is not type(now):
            yield key, was, now


def short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:80]} ... {text[-75:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    writing = verbs.add_parser("write")
    writing.add_argument("out", type=Path)
    writing.add_argument("--without-pairs", dest="without", action="store_const", const="pairs", default="", help="only cells and documentation")
    comparing = verbs.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--renamed", action="append", default=[], metavar="OLD=NEW", help="a module or file that has a new name; repeatable")
    comparing.add_argument("--messages", action="store_true", help="also compare the messages of refusals, not only exit codes and rules")
    comparing.add_argument(
        "--part", action="store_true", help="AFTER was written with --without-pairs: do not count the jobs that it lacks as different"
    )
    arguments = parser.parse_args()
    if arguments.verb == "write":
        return write(arguments.out.absolute(), arguments.without)
    renamed = dict(pair.split("=", 1) for pair in arguments.renamed)
    old, new = read(arguments.before, renamed, arguments.messages), read(arguments.after, {}, arguments.messages)
    return compare({job: old[job] for job in old if job in new} if arguments.part else old, new)


if __name__ == "__main__":
    raise SystemExit(main())

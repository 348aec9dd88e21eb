"""F5: mistakes in a command or in a data file get one message that names them; what has none is accepted.

    PYTHONPATH=. python benchmarks/reliability/hostile_inputs.py --trials 6000 --out benchmarks/results/reliability/hostile_inputs.jsonl

`--first 600` goes on. Of six trials five are commands and one is a data file, drawn by the seed; one in eight holds no mistake. A command is
`regimen plan` of a drawn run with one override more, called in this process: a misspelt key, a choice that is not there, text for a number, a number
below its range, or no override at all. It must end with 2, one sentence that names what was given, no traceback, and nothing written. A data file of
JSON lines has one broken line: cut JSON, no object, bytes that are not UTF-8, a missing column, a number for a text. Its reading must end with a
DataError that names the file and the line. The broken variant looks at no ranges and lets bad rows pass.
"""

import io
import json
import os
import random
import string
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.trials import arguments, run
from conf.exit_codes import CONFIG, DATA, DONE
from conf.groups import built_in_choices
from launcher.cli import main as regimen
from launcher.composition.names import field_type, known_keys
from launcher.gate import judge
from tests.described import described
from trainers.data.prepare.folder import prepare
from trainers.data.samples import reading
from trainers.model.tokenizer import load_tokenizer
from trainers.ranks.causes import cause_of

RUNS = (
    ("model=demo", "data=demo", "node=cpu"),
    ("model=demo", "data=demo", "node=cpu", "regime=lora", "regime.rank=4"),
    ("model=demo", "data=demo", "node=cpu", "stage=dpo", "sharding=zero2"),
    ("model=llama3.1_8b", "data=demo", "node=h100_80", "node.gpus=8", "regime=qlora"),
    ("model=qwen2.5_0.5b", "data=demo", "node=a100_80", "sharding=fsdp2", "regime=full"),
)
RECORDS, LEAST_RECORDS = 30, 8
FILE = (
    "model=demo",
    "data=files",
    "data.folder=.",
    "data.template=chatml",
    "data.cutoff=512",
    "node=cpu",
    "cluster.ranks_per_node=1",
)
GOOD = {"instruction": "What is 1 + 1?", "input": "", "output": "1 + 1 = 2."}
AT_LEAST_ONE = ("training.micro_batch", "data.cutoff", "training.log_interval", "cluster.nodes", "cluster.ranks_per_node")


@dataclass(frozen=True)
class Mistake:
    """`names`: what the message must hold."""

    given: str
    names: str


def misspelt(chance: random.Random) -> Mistake:
    keys = known_keys()
    key = chance.choice([key for key in keys if "." in key])
    group, _, name = key.partition(".")
    while f"{group}.{name}" in keys:
        place = chance.randrange(len(name))
        name = chance.choice((name[:place] + name[place + 1 :], name[:place] + chance.choice(string.ascii_lowercase) + name[place:])) or "x"
    return Mistake(f"{group}.{name}=1", f"{group}.{name}")


def no_choice(chance: random.Random) -> Mistake:
    group = chance.choice(("model", "data", "stage", "regime", "optim", "sharding", "cluster", "node", "backend", "tracking"))
    there = built_in_choices(group)
    name = chance.choice(sorted(there))
    while name in there:
        name += chance.choice(string.ascii_lowercase)
    return Mistake(f"{group}={name}", f"{group}={name}")


def numbers() -> list[str]:
    return [
        key
        for key in known_keys()
        if field_type(key).split(" ")[0] in ("int", "float") and key.partition(".")[0] in ("training", "data", "hang", "gate")
    ]


def text_for_a_number(chance: random.Random) -> Mistake:
    key, text = chance.choice(numbers()), "".join(chance.choices(string.ascii_letters, k=chance.randint(4, 12)))
    return Mistake(f"{key}=x{text}", key)


def below_its_range(chance: random.Random) -> Mistake:
    key = chance.choice(AT_LEAST_ONE)
    return Mistake(f"{key}={-chance.randrange(10**9)}", key)


def no_override(chance: random.Random) -> Mistake:
    text = "".join(chance.choices(string.ascii_letters + string.digits + "学é _%!?;#@", k=chance.randint(1, 20))).strip() or "x"
    return Mistake(f"x{text}", "")


MISTAKES: tuple[Callable[[random.Random], Mistake], ...] = (misspelt, no_choice, text_for_a_number, below_its_range, no_override)


def command(chance: random.Random, mistaken: bool) -> dict[str, Any]:
    make = chance.choice(MISTAKES)
    mistake = make(chance) if mistaken else None
    words = [*chance.choice(RUNS), *([mistake.given] if mistake else [])]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = regimen(["plan", *words])
    said = [line for line in err.getvalue().splitlines() if line.startswith("regimen: ")]
    plain = "Traceback" not in out.getvalue() + err.getvalue() and os.listdir() == []
    held = plain and (code == CONFIG and len(said) == 1 and mistake.names in err.getvalue() if mistake else code == DONE and not said)
    return {
        "kind": make.__name__ if mistake else "no mistake",
        "given": mistake.given if mistake else "",
        "code": code,
        "held": held,
        "said": err.getvalue(),
    }


def cut_json(chance: random.Random) -> bytes:
    whole = json.dumps(GOOD).encode()
    return whole[: chance.randrange(1, len(whole) - 1)]


def no_object(chance: random.Random) -> bytes:
    return chance.choice((b"[1, 2]", b"7", b'"text"', b"null", b"true"))


def no_utf8(chance: random.Random) -> bytes:
    return json.dumps(GOOD).encode().replace(b"What", chance.choice((b"\xff\xfe", b"\xc3(", b"\x80")))


def no_column(chance: random.Random) -> bytes:
    return json.dumps({name: text for name, text in GOOD.items() if name != "output"}).encode()


def no_text(chance: random.Random) -> bytes:
    return json.dumps({**GOOD, "output": chance.choice((7, [1], {"a": 1}, True, 1.5))}).encode()


BROKEN_LINES: tuple[Callable[[random.Random], bytes], ...] = (cut_json, no_object, no_utf8, no_column, no_text)


def data_file(chance: random.Random, mistaken: bool) -> dict[str, Any]:
    lines = [json.dumps(GOOD).encode()] * chance.randint(LEAST_RECORDS, RECORDS)
    make, place = chance.choice(BROKEN_LINES), chance.randrange(len(lines))
    if mistaken:
        lines[place] = make(chance)
    file = Path(f"set{chance.randrange(10**6)}.jsonl")
    file.write_bytes(b"\n".join(lines) + b"\n")
    settled = described(*FILE, f"data.sets=[{file}]")
    code, said = DONE, ""
    try:
        prepare(settled, load_tokenizer(settled), Path("prepared"))
    except Exception as error:  # noqa: BLE001 - what a rank makes of it is the result of the trial
        code, said = cause_of(error)
    named = str(file) in said and f"line {place + 1}" in said
    held = "Traceback" not in said and (code == DATA and named if mistaken else code == DONE)
    return {"kind": make.__name__ if mistaken else "no mistake in a file", "given": "", "code": code, "held": held, "said": said}


def trial(number: int, seed: int) -> dict[str, Any]:
    chance = random.Random(f"{seed} {number}")
    mistaken = chance.random() < 7 / 8
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="hostile-") as made:
        os.chdir(made)
        try:
            found = (data_file if number % 6 == 5 else command)(chance, mistaken)
        finally:
            os.chdir(before)
    said = found.pop("said")
    return {**found, "landed": True, "why": f"{found['kind']}, {found['given']!r}: {said[-600:]}"}


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory(prefix="hostile-home-") as home:
        os.environ |= {"XDG_CACHE_HOME": home, "XDG_STATE_HOME": home}
        if options.broken:
            judge.check_values = lambda _: None
            reading.refuse_bad_rows = lambda *_: None
        return run(options, "F5 hostile inputs", trial)


if __name__ == "__main__":
    sys.exit(main())

"""F6: damage to a committed folder of a real run, each file and each field of its manifest in every way below, is always found.

    python -m benchmarks.reliability.damage RUN [--trials 200] [--seed 0] [--out benchmarks/results/reliability/damage.jsonl] [--broken]

RUN is the folder of a finished run; its newest checkpoint and its final model are copied, and a copy is damaged for each trial. The first trials go
through every way and every file once; the others draw both. --broken compares sizes alone, as a check without hashes does.
"""

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.reliability.trials import arguments, files_of, run
from conf.committed import MANIFEST, committed, faults
from conf.run_dir import RunDir

Damage = Callable[[Path, random.Random], str]  # damages a file, and says how


def flipped(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    place, bit = chance.randrange(len(content)), chance.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {place}"


def cut(path: Path, chance: random.Random) -> str:
    size = chance.randrange(path.stat().st_size)
    with path.open("rb+") as file:
        file.truncate(size)
    return f"cut to {size} bytes"


def grown(path: Path, chance: random.Random) -> str:
    with path.open("ab") as file:
        file.write(chance.randbytes(1))
    return "one byte more"


def zeroed(path: Path, chance: random.Random) -> str:
    """As a disk that loses a block; of a block that is zero already, its first byte is one instead."""
    content = bytearray(path.read_bytes())
    start = chance.randrange(0, len(content), 4096)
    block = content[start : start + 4096]
    content[start : start + 4096] = bytes(len(block)) if any(block) else b"\1" + bytes(len(block) - 1)
    path.write_bytes(content)
    return f"block at {start} lost"


def removed(path: Path, chance: random.Random) -> str:
    path.unlink()
    return "removed"


def linked(path: Path, chance: random.Random) -> str:
    target = path.parent.parent / f"elsewhere-{path.name}"
    shutil.move(path, target)
    path.symlink_to(target)
    return "a link to the same bytes"


def joined(path: Path, chance: random.Random) -> str:
    path.with_name(f"{path.name}.more").write_bytes(b"more")
    return "another file beside it"


WAYS: dict[str, Damage] = {way.__name__: way for way in (flipped, cut, grown, zeroed, removed, linked, joined)}


def fields_of(manifest: Path) -> list[tuple[str, ...]]:
    """The path of every field: those at the top, and of each file its bytes and its hash."""
    values = json.loads(manifest.read_text())
    return [*((name,) for name in values), *(("files", name, part) for name in values["files"] for part in ("0", "1"))]


def change_field(manifest: Path, field: Sequence[str], chance: random.Random) -> str:
    values = json.loads(manifest.read_text())
    holder: Any = values
    for name in field[:-1]:
        holder = holder[name]
    key: Any = int(field[-1]) if isinstance(holder, list) else field[-1]
    way = chance.choice(["changed", "removed"]) if isinstance(holder, dict) else "changed"
    if way == "removed":
        del holder[key]
    else:
        holder[key] = other(holder[key])
    manifest.write_text(json.dumps(values, sort_keys=True))
    return f"{way}: {'.'.join(field)}"


def other(value: Any) -> Any:
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return ("0" if value[0] != "0" else "1") + value[1:]
    return dict(list(value.items())[1:])


def trials_of(folders: Sequence[Path]) -> list[tuple[Path, str, str]]:
    """(folder, name of the file, way); `field:...` is a way of the manifest alone."""
    files = [(folder, str(path.relative_to(folder))) for folder in folders for path in files_of(folder)]
    fields = [(folder, MANIFEST, f"field:{json.dumps(field)}") for folder in folders for field in fields_of(folder / MANIFEST)]
    return [*((folder, name, way) for (folder, name), way in product(files, WAYS)), *fields]


def damaged(path: Path, way: str, chance: random.Random) -> str:
    field = way.removeprefix("field:")
    return WAYS[way](path, chance) if field == way else change_field(path, json.loads(field), chance)


def trial(folders: Sequence[Path], number: int, seed: int, broken: bool) -> dict[str, Any]:
    chance = random.Random(f"{seed} {number}")
    every = trials_of(folders)
    folder, name, way = every[number] if number < len(every) else chance.choice(every)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="damaged-") as place:
        copy = shutil.copytree(folder, Path(place) / folder.name)
        how = damaged(copy / name, way, chance)
        found = faults(copy, contents=not broken)
    return {"landed": True, "held": bool(found), "file": name, "way": way, "why": f"{folder.name}/{name}, {how}: nothing was found", "of": len(every)}


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    run_dir = RunDir(options.run)
    folders = [*committed(run_dir)[:1], *([run_dir.model] if run_dir.model.is_dir() else [])]
    whole = [folder for folder in folders if not faults(folder)]
    if not folders or whole != folders:
        print(f"{options.run} must have a whole checkpoint or a final model: {[faults(folder) for folder in folders]}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="damage-") as place:
        copies = [shutil.copytree(folder, Path(place) / folder.name) for folder in folders]
        return run(options, "F6 damage", lambda number, seed: trial(copies, number, seed, options.broken))


if __name__ == "__main__":
    sys.exit(main())

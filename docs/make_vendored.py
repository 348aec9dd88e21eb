"""Fetches the two libraries that the board's pages use from npm into launcher/board/static, and notes what they are in vendored.json.

python -m docs.make_vendored     (needs npm and the network; installing and running regimen needs neither)
"""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

STATIC = Path(__file__).resolve().parents[1] / "launcher" / "board" / "static"
NOTE = STATIC / "vendored.json"
LIBRARIES = {
    "htmx.org@2.0.11": {"htmx.min.js": "dist/htmx.min.js", "htmx.LICENSE.txt": "LICENSE"},
    "uplot@1.6.32": {"uPlot.iife.min.js": "dist/uPlot.iife.min.js", "uPlot.min.css": "dist/uPlot.min.css", "uPlot.LICENSE.txt": "LICENSE"},
}


def fetched(library: str, files: dict[str, str], folder: Path) -> dict[str, Any]:
    """Copy the files of one package, and say what they are. npm checks the package against the registry's hash."""
    packed = subprocess.run(["npm", "pack", library, "--json"], cwd=folder, check=True, capture_output=True, text=True)
    [about] = json.loads(packed.stdout)
    with tarfile.open(folder / about["filename"]) as package:
        licence = json.loads(read(package, "package.json"))["license"]
        contents = {name: read(package, origin) for name, origin in files.items()}
    for name, content in contents.items():
        (STATIC / name).write_bytes(content)
    hashes = {name: {"from": files[name], "sha256": hashlib.sha256(content).hexdigest()} for name, content in contents.items()}
    return {"package": about["name"], "version": about["version"], "license": licence, "integrity": about["integrity"], "files": hashes}


def read(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(f"package/{name}")
    assert file is not None, f"the package has no file {name}"
    return file.read()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        notes = [fetched(library, files, Path(folder)) for library, files in LIBRARIES.items()]
    NOTE.write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")

"""How many bytes of host memory the processes of this machine may use: physical memory, or a cgroup's limit below it."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from launcher.errors import ConfigError


def host_memory(root: Path) -> tuple[int, str]:
    """Bytes that processes of this machine may use, and what limits them."""
    limits = [(mem_total(root), "MemTotal"), *cgroup_limits(root)]
    return min(limits, key=lambda limit: limit[0])


def mem_total(root: Path) -> int:
    match = re.search(r"^MemTotal:\s+(\d+) kB$", (root / "proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    if match is None:
        raise ConfigError("/proc/meminfo has no MemTotal. Set node.host_memory to this machine's, for example 64GB.")
    return int(match[1]) * 1024


def cgroup_limits(root: Path) -> Iterator[tuple[int, str]]:
    """Limits of this process's group and of every group above it; the lowest one counts (kernel, cgroup-v2.rst and cgroup-v1/memory.rst)."""
    groups = root / "proc/self/cgroup"
    if not groups.is_file():
        return
    for line in groups.read_text(encoding="utf-8").splitlines():
        _number, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from limits_up(root / "sys/fs/cgroup", path, "memory.max", "cgroup v2 limit")
        elif "memory" in controllers.split(","):
            yield from limits_up(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes", "cgroup v1 limit")


def limits_up(mount: Path, path: str, file_name: str, source: str) -> Iterator[tuple[int, str]]:
    group = PurePosixPath(path)
    for folder in (group, *group.parents):
        file = mount / folder.relative_to("/") / file_name
        # In a container without its own cgroup namespace `path` is the host's and absent here; the mount's root is then our group.
        text = file.read_text(encoding="ascii").strip() if file.is_file() else "max"
        if text != "max":
            yield int(text), source

"""What a rank writes of the memory that it used."""

import json
from pathlib import Path

from conf.run_dir import RunDir
from trainers.measure import write_peak
from trainers.place import Place


def test_a_rank_on_a_cpu_writes_its_host_peak_and_no_phases(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    write_peak(run_dir, Place(rank=1, local_rank=1, world=2), None)
    found = json.loads(run_dir.peak_file(1).read_text())
    assert set(found) == {"rank", "host"}
    assert found["rank"] == 1
    assert 50 * 2**20 < found["host"] < 2**40  # bytes, not the kibibytes of getrusage: an interpreter with torch holds more than 50 MiB

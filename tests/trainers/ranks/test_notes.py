"""What rank 0 tells the user, whatever characters it holds."""

import os
from pathlib import Path

from conf.run_dir import RunDir
from trainers.ranks.notes import tell


def test_a_line_may_name_a_file_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    """Such a file beside the data is named among those that are not read."""
    tell(RunDir(tmp_path), [f"These files are not read: {os.fsdecode('数据'.encode('gbk'))}.pdf."])
    assert RunDir(tmp_path).notes.read_text(encoding="utf-8") == "These files are not read: \\udcca\\udcfd\\udcbe\\udcdd.pdf.\n"

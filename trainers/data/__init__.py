"""The data of every stage: sets, formats, templates, masking, packing, collation."""

from trainers.data.prepare.folder import PreparedData, build_datasets, load_prepared, prepare
from trainers.data.prepare.report import DataReport
from trainers.data.rows.collator import build_collator

__all__ = ["DataReport", "PreparedData", "build_collator", "build_datasets", "load_prepared", "prepare"]

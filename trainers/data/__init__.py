"""The data of every stage: sets, formats, templates, masking, packing, collation."""

from trainers.data.collator import build_collator
from trainers.data.prepare import PreparedData, build_datasets, load_prepared, prepare
from trainers.data.report import DataReport

__all__ = ["DataReport", "PreparedData", "build_collator", "build_datasets", "load_prepared", "prepare"]

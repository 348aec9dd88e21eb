"""One thing done otherwise in the process of a rank, before it begins: what spared.py and times.py measure beside a run as it is."""

import gc
from collections.abc import Callable


def keep_liger_norms() -> None:
    import trainers.kernels.parts

    trainers.kernels.parts.spare_frozen_norms = lambda _: 0


def clip_by_accelerate() -> None:
    import trainers.kernels.stepping

    trainers.kernels.stepping.one_kind = lambda _: False


def as_it_is() -> None:
    pass


AS_IT_IS, LIGERS_NORMS = "as it is", "liger's norms"
# By name: what is done in the rank before it begins, and keys beside those of the run.
WAYS: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    AS_IT_IS: (as_it_is, ()),
    LIGERS_NORMS: (keep_liger_norms, ()),
    "accelerate's clipping": (clip_by_accelerate, ()),
    "without Python's collector": (gc.disable, ()),
    "one worker makes batches": (as_it_is, ("training.dataloader_workers=1",)),
}

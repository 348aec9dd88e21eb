"""training.deterministic: only kernels that give the same bits in each run."""

from conf.schema import Run

NO_FORM = "does not have a deterministic implementation"  # torch's words (aten/src/ATen/Context.cpp, alertNotDeterministic)


def choose_kernels(run: Run) -> None:
    """For this process, as long as it lives. An operation that has no such kernel then ends the run; causes.py says what to do.

    torch takes the deterministic backward passes of its flash and memory-efficient attention then, and no attention of cuDNN, which has none
    (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp). The Triton kernels of trainers/kernels and liger add in a fixed order as they are.
    """
    if run.training.deterministic:
        import torch  # causes.py reads this module, and a rank answers before it has loaded libraries

        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # every result here is written before it is read
        torch.backends.cudnn.benchmark = False

"""What launcher and trainers share about training.kernels=fused: the families whose layers it computes, and sizes."""

# Compared with transformers' own, loss and every gradient, in tests/gpu/test_kernels.py; all compute their logits by a head without bias alone.
FUSED_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3", "gemma3_text"})

# Of these, families that multiply what they have normalised by 1 plus a weight.
OFFSET_NORMS = frozenset({"gemma3_text"})

# Elements of the logits that its loss holds at a time: 512 MiB in 16 bits, 2,093 tokens of a vocabulary of 128,256 (trainers/kernels/loss.py).
LOGITS = 2**28

# Tokens: on a GPU rows that are laid end to end are filled up to a multiple of it, or of more (trainers/kernels/rows.py).
FILLED = 128

# Of both sides of a matrix, for its products to be made in 8-bit floating point (torch._scaled_mm); others stay in 16 bits.
FP8_MULTIPLE = 16

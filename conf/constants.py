"""Names and numbers that the launcher and the trainers must agree on."""

# PEFT's file names.
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

HQQ_GROUP = 64  # weights that share a scale and a zero point, of regime.bits=2
NF4_BLOCK = 64  # weights that share a scale, of regime.bits=4 (bitsandbytes/functional.py)
NF4_SCALE_BLOCK = 256  # scales that share one of their own, of regime.double_quant
EXPERT_BUFFER = 2**28  # bytes: packed experts are unpacked so many at a time, but at least one
ALL_LINEAR = "all-linear"  # regime.targets: every linear layer but the output head
EXPERTS = "experts"  # regime.targets: the matrices of every routed expert
SCORE_HEAD = "score"  # transformers' name of the linear layer from the last token's state to a reward
BYTE_TOKENIZER = "bytes"  # model.tokenizer: the built-in one
BYTE_TOKENS = ("<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")  # which it has beside the 256 bytes; its chat template is chatml

GENERATED = "generated"  # data.sets: the toy task that the project makes itself
GENERATED_SAMPLES = 2000

# stage.rewards: what trainers/reinforcement/rewards.py has a function for.
BUILT_IN_REWARDS = ("exact_answer", "contains_answer", "format", "brevity")

# What a run does outside of its steps, as it is shown: rank 0 writes the others (trainers/ranks/doing.py).
STARTING = "starting the ranks"  # until rank 0 writes its first line
HELD = "waiting for its GPUs"  # a sweep started it before they are free, so that its libraries are loaded by then
TRAINING = "training"  # steps follow each other, and progress.jsonl has the rest

LOSS_CHUNK = 512  # tokens whose logits exist at a time under training.loss=chunked: enough to fill a GPU in the head's product
WEIGHTS_FILE = 5 * 10**9  # bytes of a file of weights where a split model is written file by file; a layer that is larger stands alone

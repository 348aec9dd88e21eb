"""Many runs from one command: Hydra's multirun over the GPUs of this machine."""

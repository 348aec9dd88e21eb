"""What `python -m trainers.verbs.<verb> FOLDER` runs."""

from trainers.checkpoints.pickles import load_only_weights
from trainers.ranks.noise import leave_out_noise

leave_out_noise()  # before a verb's module imports the libraries that speak while they are imported
load_only_weights()

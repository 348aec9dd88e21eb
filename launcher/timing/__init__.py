"""The time of a run's step, in closed form: step.py adds up the terms."""

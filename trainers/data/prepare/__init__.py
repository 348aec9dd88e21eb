"""The whole way from data.sets to the datasets of a trainer, with its cache."""

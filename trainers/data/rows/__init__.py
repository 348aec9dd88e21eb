"""Samples become rows of token ids: templates, masks, packing, batches."""

"""Tensors of several models in, tensors of one model out: rules, outer optimisers, streaming merge of files."""

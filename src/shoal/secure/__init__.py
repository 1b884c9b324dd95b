"""Masks that cancel in a sum: keys, shares and decisions come in, streams to add to ring words come out."""

"""Experiments on one data set: sites, training, merging, tables and plots."""

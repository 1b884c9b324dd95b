"""Signed statements <-> one ordered, verifiable log.  Statements come in; out goes the same history at every member."""

"""The command line: one file per command group; prints and parses, nothing else."""

"""`python -m shoal`: the same as the command `shoal`."""

from shoal.cli.main import run

if __name__ == "__main__":
    run()

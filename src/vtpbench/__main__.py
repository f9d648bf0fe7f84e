"""`python -m vtpbench` is the command `vtpbench`."""

from vtpbench.harness.cli.main import app

if __name__ == "__main__":
    app(prog_name="vtpbench")

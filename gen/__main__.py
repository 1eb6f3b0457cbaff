"""`python -m gen`, the same as `gen`."""

from gen.commands.main import main

if __name__ == "__main__":
    main(prog_name="gen")

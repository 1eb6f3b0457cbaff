"""Draw images from a trained generator: `python sample.py RUN --grid grid.png`, as `gen sample`."""

from gen.commands.sample import sample

if __name__ == "__main__":
    sample()

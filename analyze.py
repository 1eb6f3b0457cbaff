"""Measure and explain checkerboards: `python analyze.py images DIR`, the same as `gen images DIR`."""

from gen.commands.main import analyze

if __name__ == "__main__":
    analyze()

"""Measure and explain checkerboards: `python analyze.py images DIR` is `gen images DIR`."""

from gen.commands.main import analyze as main

if __name__ == "__main__":
    main()

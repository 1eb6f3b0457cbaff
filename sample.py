"""Draw images from a trained generator: `python sample.py RUN` is `gen sample RUN`."""

from gen.commands.sample import sample as main

if __name__ == "__main__":
    main()

"""Train an image generator: `python train.py dcgan` is `gen train dcgan`."""

from gen.commands.train import train as main

if __name__ == "__main__":
    main()

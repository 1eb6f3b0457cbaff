"""Train an image generator: `python train.py dcgan --data shapes`, the same as `gen train dcgan`."""

from gen.commands.train import train

if __name__ == "__main__":
    train()

"""Samples: image i from seed i, whatever the batch size, the order or the company.

from gen.sampling import load, sample_images
images = sample_images(load("runs/00000-dcgan-shapes"), seeds=range(64))  # uint8 (64, C, H, W)
"""

from gen.sampling.draw import (
    GROUP,
    Generator,
    Run,
    decode_latents,
    decoder_of,
    draw_inputs,
    draw_latents,
    load,
    open_run,
    sample_batches,
    sample_images,
    use_bf16,
)

__all__ = [
    "GROUP",
    "Generator",
    "Run",
    "decode_latents",
    "decoder_of",
    "draw_inputs",
    "draw_latents",
    "load",
    "open_run",
    "sample_batches",
    "sample_images",
    "use_bf16",
]

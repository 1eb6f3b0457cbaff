"""Measure the lattice artifacts of upsampling in sets of images: `measure`, `Meter`."""

"""Samples: image i from seed i, whatever the batch size, the order or the company."""

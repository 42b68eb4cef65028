"""Data sets made from data sets: `python -m vla_jax.construct COMMAND`.

`inspect` and `pack` look at published files and pack them (`files.py`). Commands that ask a model have a file
each, and write packed records that training reads with `data.source=packed`.
"""

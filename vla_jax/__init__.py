"""vla_jax: vision-language alignment in JAX (not vision-language-action).

Five papers on aligning vision-language models run on one engine: views x responses -> scores -> objective.

Dimension letters, the same in every annotation and einsum of the house:
  b batch, v views, r responses, c candidates, s prefix length, t response length, n image tokens,
  d model width, h heads, g key/value heads, k head dimension, f feed-forward width, w vocabulary,
  l layers, y image rows, x image columns.
"""

__version__ = "0.1.0"

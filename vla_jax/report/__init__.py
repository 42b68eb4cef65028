"""What a run did to a model, as one self-contained HTML page that opens anywhere, offline.

`write_report` lays out the page (`page.py`, `page.html.jinja`) from three parts that know no HTML:
`measures.py` compares figures before and after, `curves.py` draws what training logged, and `marking.py`
splits an answer into the words that are true of the image, the words that are not, and the rest.
"""

from vla_jax.report.page import GalleryItem, ViewStrip, write_report

__all__ = ["GalleryItem", "ViewStrip", "write_report"]

"""What a run did to a model, as one self-contained HTML page that opens anywhere, offline.

`write_report` lays out the page (`page.py`, `page.html.jinja`) from parts that know no HTML: `measures.py`
compares figures before and after, `curves.py` draws what training logged, `marking.py` splits an answer into
the words that are true of the image, the words that are not, and the rest, `heat.py` draws a map of numbers
over an image. `write_records` and `write_words` lay out other pages, on
what is in a data set and on what a verifier says of captions.
"""

from vla_jax.report.heat import heat_over
from vla_jax.report.page import GalleryItem, ViewStrip, write_report
from vla_jax.report.records import write_records
from vla_jax.report.words import figures, write_words

__all__ = ["GalleryItem", "ViewStrip", "figures", "heat_over", "write_records", "write_report", "write_words"]

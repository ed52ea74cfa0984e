"""What came of a batch as one web page beside the pictures, to be looked at without a network.

Its rule: values in, text out. `GalleryItem`s become the text of one `index.html` that holds all it
needs, refuses every connection by its own Content-Security-Policy, and shows its pictures without
JavaScript too. Nothing here reads or writes a file: `eggapi gallery` does.
"""

from .items import GalleryItem, GalleryPicture, Totals
from .page import chunks, render
from .sizes import measured

__all__ = ["GalleryItem", "GalleryPicture", "Totals", "chunks", "measured", "render"]

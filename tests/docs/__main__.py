"""Write the generated parts."""

from tests.docs import PAGES, rewritten
from tests.docs.picture import PICTURE, svg

for page in PAGES:
    page.write_text(rewritten(page.read_text()))
PICTURE.write_text(svg())

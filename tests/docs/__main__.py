"""Write the generated parts."""

from tests.docs import PAGES, rewritten

for page in PAGES:
    page.write_text(rewritten(page.read_text()))

"""The site of `make docs`: README, CHANGELOG, CONTRIBUTING and docs/, with the API reference."""

from importlib import metadata

project, author, release = "gen", "the authors of gen", metadata.version("gen")
copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["docs/site"]
root_doc = "index"
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"gen {release}"
html_show_sphinx = html_show_copyright = html_copy_source = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True}
add_module_names = False

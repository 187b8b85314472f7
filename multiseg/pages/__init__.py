"""Tools for self-contained HTML pages: templates, pictures, numbers."""

"""The built-in filters: one module per family, one `Plugin` per filter, named in `synthgen.plugins`."""

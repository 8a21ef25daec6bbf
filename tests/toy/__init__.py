"""A fourth provider, as docs/providers.md tells to write one: three files and a line in the registry."""

"""The process that providers post to."""

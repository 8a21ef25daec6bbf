"""The command line: thin, every verb is the journey's."""

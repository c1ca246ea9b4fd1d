//! How `--python FILE.py:FUNCTION` becomes a command line, and what can be said of it before anything starts.

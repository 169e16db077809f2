"""Tables and figures of one run; nothing here computes a score."""

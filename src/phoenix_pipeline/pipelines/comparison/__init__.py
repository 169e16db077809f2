"""Stage ``comparison``: all arms side by side."""

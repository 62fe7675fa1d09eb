"""Tools for developers: noxfile.py imports some, and some are run alone."""

"""A model of everything that can happen to a start, explored at random."""

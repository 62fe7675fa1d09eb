"""Tests of the client: against the simulator over HTTP, and of its pure parts by hand."""

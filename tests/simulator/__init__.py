"""Tests of the simulator, over real HTTP; time is moved by hand."""

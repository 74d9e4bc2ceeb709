"""Organisations with databases of their own, of different shapes, for tests of what is read and given back."""

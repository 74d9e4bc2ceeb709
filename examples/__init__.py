"""Ways to use bidden from a program of your own. tests/acceptance/test_examples.py runs each of them."""

"""Bad input as data: what is wrong, and the one line that it gets, or what comes of it all the same.

Each module has the cases of one part of the pipeline. tests/test_catalogue.py runs all of them.
"""

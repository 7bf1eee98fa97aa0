"""Features and matches in the forms that other programs read, one file for each neighbour.

Nothing is imported here: only the functions that call a neighbour's library need it.
docs/formats.md lists the forms, their origins and their pitfalls.
"""

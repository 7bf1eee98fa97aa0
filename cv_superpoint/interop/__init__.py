"""Features and matches in the forms that other programs read, one file for each neighbour.

Nothing is imported here: a neighbour's library is needed only by the functions that speak to it.
docs/formats.md lists the forms, their origins and their traps.
"""

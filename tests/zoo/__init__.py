"""The zoo: wrong servers with one fault each, of the kinds that people really write, and right ones in other languages.

What each is stands in the first comment lines of its file.
"""

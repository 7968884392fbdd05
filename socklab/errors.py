"""Whose fault it is: what a person asked for. What the lab could not do is a LabError (socklab.backends); what a server did, a Failed."""


class UserError(Exception):
    """A file, a name or an option of which nothing can be made. The message is a line or two, with the way out."""

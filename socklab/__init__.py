"""socklab: a lab bench for socket servers."""

__version__ = "0.1.0"
BACKENDS = ("auto", "netns", "process", "docker", "joined")
"""What --on takes."""
CLIENTS = ("alice", "bob", "carol")
"""Who plays by hand, if nobody says otherwise."""

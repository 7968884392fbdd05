"""A crowd: thousands of clients in one program, as one. It says what it is told as fast as it may, and checks what each member hears.

A part of the scripted client; agent.py loads it with the first command that concerns a crowd:

    → {"id": 1, "do": "crowd", "what": "open", "crowd": "crowd", "kind": "tcp", "to": ["10.71.0.2", 6002], "count": 5000}
    ← {"id": 1, "ok": true, "t": …, "connected": 5000, "failed": {}, …}
    → {"id": 2, "do": "crowd", "what": "fan-out", "crowd": "crowd", "senders": 10, "size": 63, "seconds": 2}
    ← {"id": 2, "ok": true, "t": …, "delivered": 81920000, "lost": 0, "doubled": 0, "damaged": 0, "seconds": 2.0, …}

Crowds of several agents can make one load at a rate: one of them has the senders, the others ("elsewhere": true) only listen. They need
not talk to each other, for every line and its time are known beforehand. What they are told is whose first line somebody has not heard
yet ("meet", round by round until nobody misses any), and when the load begins, by their own clock:

    → {"id": 2, "do": "crowd", "what": "meet", "crowd": "crowd", "senders": 10, "elsewhere": true, "size": 63, "rate": 1000, "seconds": 2}
    ← {"id": 2, "ok": true, "t": …, "missing": []}
    → {"id": 3, "do": "crowd", "what": "fan-out", "crowd": "crowd", "at": 8124.25}

Neither what is said nor what is heard crosses the control stream, so that neither it nor the conductor is what is measured.

What was delivered is checked, every byte of it. A line says who says it and how many lines that member has said:
`~0003.00001234~`, filled up to its size. All of a sender's lines are made beforehand, in a ring, and so is what a receiver must
get of them. When all receivers hear the same in the same order, as they mostly do, one of them is checked line by line, and the
others against it: one comparison of memory for each recv(), whatever the lines are. A receiver that hears another order is
checked by itself from there on. So one process can check tens of millions of deliveries a second. Of the lines of a load,
- `lost` ones did not come, or not whole, to a receiver that is still there;
- `doubled` ones came whole and had come before; `reordered` ones came behind a later one of the same sender;
- `damaged` ones bear the mark of a sender and are not what it said: cut, mixed with another, altered;
- `foreign` ones bear none: others talk there, too. They are passed over.

A server may decorate lines, with a name, an address, a time. What stands around them is learned from the first ones. Where it
changes from line to line, in letters and digits only, a line is taken apart instead of compared: right as well, but slower.

There are two ways to say it:
- with a window: never more than so many lines ahead of the slowest receiver. That finds the most that a server can do.
- at a rate: each line has its time, whatever came of those before it, and its latency counts from that time, not from when it
  could at last be sent. So a server that stops for a second shows it in a thousand lines, not in one ("coordinated omission").
  `unsaid` are those whose time came and that found no room even two seconds after the end: their latencies are missing.

Who has what; nobody knows who stands above it:

    commands ─┬─▶ churn                      who comes and goes
              ├─▶ echo                       what comes back, of a stream or of datagrams
              ├─▶ fan_out ─┬─▶ first_lines   everybody has joined, and is heard by all, before the load begins
              │            ├─▶ senders       who says: how far each has come, and who waits for room in the kernel
              │            └─▶ receivers     who listens and checks ─▶ stream: what they hear alike ─▶ lines: the rings, the checks
              │      load                    the course of an echo or a fan-out; when each message is due, and latencies
              └─▶ members                    a crowd and its sockets: coming, greeted, idle, leaving
                     fields                  what stands in a command, and why it is refused

Between its loads a crowd does not read. Resource handling: "close", another "open", or the end of the agent closes its sockets.
"""

from .commands import Crowds

__all__ = ["Crowds"]

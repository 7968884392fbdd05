"""What runs inside a node's network: programs and their parts, standard library only, forked by the keeper or by a container."""

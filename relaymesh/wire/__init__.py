"""What travels between actors, processes and nodes: message types, msgpack codec, framing."""

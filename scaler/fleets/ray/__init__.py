"""Workers on a Ray cluster, an actor each. `fleet` decides, `cluster` speaks with Ray, `actor` runs on the nodes."""

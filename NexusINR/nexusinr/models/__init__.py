"""The networks: Nexus-INR and ICONet, their parts, and the loading of their weights."""

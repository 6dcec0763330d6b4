"""The networks: Nexus-INR and ICONet, their parts, and the loading of their weights."""

from nexusinr.models.heap import keep_freed_memory

keep_freed_memory()

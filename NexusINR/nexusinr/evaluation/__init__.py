"""How good it is: metrics, protocols, tables and pictures."""

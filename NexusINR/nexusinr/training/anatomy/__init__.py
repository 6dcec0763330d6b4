"""Where each tissue of a procedural adult head lies, in patient space."""

"""What the pages of the operators' console have in common. It is here because every application may import it."""

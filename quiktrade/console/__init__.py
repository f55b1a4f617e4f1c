"""What the pages of the operators' console have in common. It lives here because imports point down to here."""

"""Who may come in: inference keys, management keys, and the sessions of the pages."""

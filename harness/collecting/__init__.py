"""Making demonstrations with the scripted expert: `vla-collect`."""

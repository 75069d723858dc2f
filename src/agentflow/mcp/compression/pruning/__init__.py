"""Parts taken out, and single weights set to zero."""

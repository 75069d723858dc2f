"""What compression makes: a folder with a manifest that says what was lost."""

"""The programs that deployed folders run: text, filled in and written beside a model, never imported here."""

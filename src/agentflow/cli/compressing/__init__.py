"""What the commands that make models smaller share: texts from files, and how far the work is."""

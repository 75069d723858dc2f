"""Model compression: prune, distil, quantise, export, and say what was lost."""

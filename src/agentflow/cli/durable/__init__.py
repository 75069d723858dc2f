"""Durable runs on the command line: kept, asked for answers, gone on with, forked, shown, cancelled, worked off."""

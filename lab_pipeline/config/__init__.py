"""Load and validate what people configure: settings and training recipes."""

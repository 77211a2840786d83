"""How good the completions are: holes with a known middle, filled through the language server or by the model alone."""

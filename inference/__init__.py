"""The resident model worker: tokens, weights, KV and sampling. Knows nothing of LSP or syntax."""

"""Engines of others, asked over HTTP for what our own would answer: requests and replies of `inference.wire`.

For the language server, which reaches them on other machines, and for the worker that runs llama.cpp. No torch.
"""

"""The Hugging Face Hub over HTTP: what a repository holds, where its bytes are, who may have them.

Everything that comes from a hub is distrusted: bodies have a limit, names are checked, redirects
are followed by hand, and the token goes to the hub's own origin only.
"""

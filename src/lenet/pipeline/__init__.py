"""The stages, thin: each reads files, calls one function and writes files; and what runs them."""

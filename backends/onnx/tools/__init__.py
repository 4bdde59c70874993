"""Tool calls: how each prompt format describes tools, constrains an answer to well-formed calls and reads them back."""

"""The rules, one module per part of the contract. Each test is a rule: its docstring says it, its mark its source."""

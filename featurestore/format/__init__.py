"""The store on disk as FORMAT.md has it: the plan, the schema, the rows and rules of a part, and what is checked before
one is decoded."""

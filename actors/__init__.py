"""The actors of a node: thin Pykka shells around the rules in relaymesh.core, and the tree that supervises them."""

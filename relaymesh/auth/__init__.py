"""The auth file and the guard of a listener; the rules are ``relaymesh.core.principal``."""

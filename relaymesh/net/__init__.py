"""Sockets: how processes on one machine reach a node."""

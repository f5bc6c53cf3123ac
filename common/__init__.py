"""Errors, files, processes and options, which every stage needs. No module of this folder imports other folders."""

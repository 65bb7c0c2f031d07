"""Test hosts: systemd-nspawn guests booted from a tree per release of Debian, on a network that leads nowhere.

``python -m deploy.hosts --help`` (with ``tests`` on the path) is what the Molecule scenarios and the Makefile call.
"""

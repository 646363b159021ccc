# SPDX-License-Identifier: Apache-2.0
"""Simulated people, halls and cameras whose truth is known."""

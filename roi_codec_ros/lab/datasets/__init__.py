# SPDX-License-Identifier: Apache-2.0
"""Photographs and their boxes, in every layout that is read or written."""

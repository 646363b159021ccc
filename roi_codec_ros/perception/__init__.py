# SPDX-License-Identifier: Apache-2.0
"""Persons in images, on the ground and as tracks: what runs live."""

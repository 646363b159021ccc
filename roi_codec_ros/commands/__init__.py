# SPDX-License-Identifier: Apache-2.0
"""The verbs of the product, one module each: parse, call, print."""

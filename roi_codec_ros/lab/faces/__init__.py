# SPDX-License-Identifier: Apache-2.0
"""Face detectors and face embedders behind one interface each."""

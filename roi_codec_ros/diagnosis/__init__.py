# SPDX-License-Identifier: Apache-2.0
"""What would keep nodes from running on this computer, found before they are started."""

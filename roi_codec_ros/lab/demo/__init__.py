# SPDX-License-Identifier: Apache-2.0
"""What `roi-codec demo` is made of: processes, what was seen, what is shown."""

# SPDX-License-Identifier: GPL-2.0
# Packs the names of many files: far more than the pipes hold.
export LC_ALL=C
touch works
find /usr /usr -type f | sort | gzip -n -9 | od -A n -t x1
